"""``siamese-eval``: how good is an embedder, on people it never saw."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn

from siamese.cli import printing
from siamese.cli.commands import Command, preload, run_chosen, run_command
from siamese.cli.parsing import require_places
from siamese.config import (
    CompareSettings,
    CurveSettings,
    EmbedSettings,
    FittedName,
    IdentifySettings,
    PeopleSettings,
    ReportSettings,
    ScoringFitSettings,
    ThresholdSettings,
    check_evaluation,
)
from siamese.errors import UserError
from siamese.processors import processes

_PLACES = {
    "checkpoint": "no such checkpoint",
    "data": "no such folder",
    "embeddings": "no such file",
    "pairs": "no such file",
    "against": "no such checkpoint or embeddings",
    "a": "no such checkpoint or embeddings",
    "b": "no such checkpoint or embeddings",
}

# torch and matplotlib are imported where the work begins: --help and a typo answer at once.


def _begin(settings: Any, work: str) -> ModuleType:
    """Refuse what cannot work, then import the module that does the work."""
    check_evaluation(settings)
    require_places(settings, _PLACES)
    if settings.out is not None:
        _require_place(Path(settings.out), is_folder=type(settings) is not EmbedSettings)
    return preload(f"siamese.report.{work}")


def _require_place(out: Path, *, is_folder: bool) -> None:
    """Notice before hours of embedding that results cannot be written there."""
    if is_folder and os.path.isfile(out):
        raise UserError(f"--out {out}: is a file; give the folder to write into")
    above = next(folder for folder in (out, *out.absolute().parents) if os.path.exists(folder))
    if above != out and not above.is_dir():
        raise UserError(f"--out {out}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise UserError(f"--out {out}: {above} may not be written to; choose another place")


def _work(module: str, function: str, show: Callable[[Any], None]) -> Callable[[Any], None]:
    """A command whose work is one function, whose result is printed."""

    def run(settings: Any) -> None:
        work = getattr(_begin(settings, module), function)
        show(work(settings))

    return run


def _curve(kind: Literal["roc", "pr", "det", "pairs"]) -> Callable[[CurveSettings], None]:
    def run(settings: CurveSettings) -> None:
        _begin(settings, "verification_report")
        if settings.folds is not None:
            from siamese.report.fold_report import judge_folds
            from siamese.studies.cross_validation import fold_checkpoints

            printing.judgement(judge_folds(settings, kind, fold_checkpoints(settings)))
            return
        from siamese.report.verification_report import judge

        printing.judgement(judge(settings, kind))

    return run


def _threshold(settings: ThresholdSettings) -> None:
    _begin(settings, "threshold_choice")
    if settings.folds is not None:
        from siamese.report.fold_report import choose_threshold_by_folds
        from siamese.studies.cross_validation import fold_checkpoints

        chosen = choose_threshold_by_folds(settings, fold_checkpoints(settings))
    else:
        from siamese.report.threshold_choice import choose_threshold

        chosen = choose_threshold(settings)
    printing.choice(chosen, settings.prior)


def _fit(kind: FittedName) -> Callable[[ScoringFitSettings], None]:
    def run(settings: ScoringFitSettings) -> None:
        printing.fitted(_begin(settings, "scoring_fit").fit_scoring(settings, kind))

    return run


_FIRST = ("data",)
_MODELS = "two models are needed: compare A B (a file of embeddings or a checkpoint each)"
COMMANDS = {
    "roc": Command(
        CurveSettings, "ROC curve, AUC, EER and TAR@FAR over all pairs", _curve("roc"), _FIRST
    ),
    "pr": Command(
        CurveSettings, "precision-recall curve and AP over all pairs", _curve("pr"), _FIRST
    ),
    "det": Command(
        CurveSettings, "DET curve: both error rates on normal-deviate axes", _curve("det"), _FIRST
    ),
    "pairs": Command(
        CurveSettings, "a list of pairs: LFW's protocols, or a CSV", _curve("pairs"), _FIRST,
        needed={"pairs": "a list of pairs to judge"},
    ),
    "threshold": Command(
        ThresholdSettings, "choose a threshold, check it, write it into the checkpoint",
        _threshold, _FIRST,
    ),
    "plda": Command(
        ScoringFitSettings,
        "fit PLDA scoring on the training people, write it into the checkpoint", _fit("plda"),
        _FIRST,
    ),
    "wccn": Command(
        ScoringFitSettings,
        "the same for WCCN beside the cosine: more TAR at small FMR, about the same AUC",
        _fit("wccn"), _FIRST,
    ),
    "people": Command(
        PeopleSettings, "who makes the errors: a table of people (CSV)",
        _work("people_report", "write_people", printing.people), _FIRST,
    ),
    "identify": Command(
        IdentifySettings, "1:N: rank-k, CMC, open set, MAP@R",
        _work("identification_report", "judge_identification", printing.identified), _FIRST,
    ),
    "compare": Command(  # a model may be a run's folder, so the pictures stand last
        CompareSettings, "two models on the same pictures: compare A B",
        _work("model_comparison", "compare", printing.comparison),
        ("a", "b", "data"), needed={"a": _MODELS, "b": _MODELS},
    ),
    "report": Command(
        ReportSettings, "everything on one self-contained HTML page",
        _work("report_page", "write_report", printing.report), _FIRST,
    ),
    "embed": Command(
        EmbedSettings, "write embeddings of a folder to an .npz or .npy file",
        _work("verification_report", "write_embeddings", printing.embeddings), _FIRST,
    ),
}  # fmt: skip


def _command(argv: Sequence[str]) -> None:
    """Under torchrun the first process does it, and the others help."""
    if processes() == 1:
        _run(argv)
        return
    from siamese.crew import form
    from siamese.training.distribution import joined, telling_lost

    # What goes from one to another lies on the CPU.
    with joined("cpu") as distribution, telling_lost(lambda: "run the command again"):
        distribution.take_gpu()
        crew = form(distribution.rank, distribution.world)
        if not distribution.first:
            crew.help()
            return
        try:
            _run(argv)
        except KeyboardInterrupt:  # which has reached all of them
            raise
        except BaseException:
            crew.end()
            raise
        crew.end()


def _run(argv: Sequence[str]) -> None:
    run_chosen(
        "siamese-eval",
        COMMANDS,
        argv,
        "Without --checkpoint the newest checkpoints/*/best.pt is judged; without --data its own",
        "validation people. A first look after training: siamese-eval roc",
        "On other people: siamese-eval roc faces/",
    )


def main() -> NoReturn:
    """Entry point of ``siamese-eval``."""
    run_command("siamese-eval", _command)


if __name__ == "__main__":  # torchrun --nproc_per_node 4 -m siamese.cli.eval roc ...
    main()
