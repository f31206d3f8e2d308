"""``siamese-eval``: how good is an embedder, on people it never saw."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from siamese.cli import telling
from siamese.cli.parsing import (
    choose_command,
    name_arguments,
    parse_settings,
    preload,
    require_places,
    run_command,
    usage,
)
from siamese.config import (
    CompareSettings,
    CurveSettings,
    EmbedSettings,
    IdentifySettings,
    PeopleSettings,
    ReportSettings,
    ThresholdSettings,
    check_evaluation,
)
from siamese.errors import UserError


@dataclass(frozen=True)
class _Command:
    settings: type[Any]
    description: str
    run: Callable[[Any], None]
    work: str  # the module that does it


# torch and matplotlib are imported where the work begins: --help and a typo answer at once.


def _embed(settings: EmbedSettings) -> None:
    from siamese.report.verification_report import write_embeddings

    telling.embeddings(*write_embeddings(settings))


def _curve(kind: Literal["roc", "pr", "det", "pairs"]) -> Callable[[CurveSettings], None]:
    def run(settings: CurveSettings) -> None:
        if settings.folds is not None:
            from siamese.report.fold_report import judge_folds
            from siamese.studies.cross_validation import fold_checkpoints

            telling.judgement(judge_folds(settings, kind, fold_checkpoints(settings)))
            return
        from siamese.report.verification_report import judge

        telling.judgement(judge(settings, kind))

    return run


def _threshold(settings: ThresholdSettings) -> None:
    if settings.folds is not None:
        from siamese.report.fold_report import choose_threshold_by_folds
        from siamese.studies.cross_validation import fold_checkpoints

        chosen = choose_threshold_by_folds(settings, fold_checkpoints(settings))
    else:
        from siamese.report.threshold_choice import choose_threshold

        chosen = choose_threshold(settings)
    telling.choice(chosen, settings.prior)


def _identify(settings: IdentifySettings) -> None:
    from siamese.report.identification_report import judge_identification

    telling.identified(judge_identification(settings))


def _people(settings: PeopleSettings) -> None:
    from siamese.report.people_report import write_people

    telling.people(write_people(settings))


def _compare(settings: CompareSettings) -> None:
    from siamese.report.model_comparison import compare

    telling.comparison(compare(settings))


def _report(settings: ReportSettings) -> None:
    from siamese.report.report_page import write_report

    telling.report(write_report(settings))


COMMANDS = {
    "roc": _Command(
        CurveSettings,
        "ROC curve, AUC, EER and TAR@FAR over all pairs",
        _curve("roc"),
        "verification_report",
    ),
    "pr": _Command(
        CurveSettings,
        "precision-recall curve and AP over all pairs",
        _curve("pr"),
        "verification_report",
    ),
    "det": _Command(
        CurveSettings,
        "DET curve: both error rates on normal-deviate axes",
        _curve("det"),
        "verification_report",
    ),
    "pairs": _Command(
        CurveSettings,
        "a list of pairs: LFW's protocols, or a CSV",
        _curve("pairs"),
        "verification_report",
    ),
    "threshold": _Command(
        ThresholdSettings,
        "choose a threshold, check it, write it into the checkpoint",
        _threshold,
        "threshold_choice",
    ),
    "people": _Command(
        PeopleSettings, "who makes the errors: a table of people (CSV)", _people, "people_report"
    ),
    "identify": _Command(
        IdentifySettings, "1:N: rank-k, CMC, open set, MAP@R", _identify, "identification_report"
    ),
    "compare": _Command(
        CompareSettings,
        "two models on the same pictures: compare A B",
        _compare,
        "model_comparison",
    ),
    "report": _Command(
        ReportSettings, "everything on one self-contained HTML page", _report, "report_page"
    ),
    "embed": _Command(
        EmbedSettings, "write embeddings of a folder to an .npz file", _embed, "verification_report"
    ),
}
_HELP = usage(
    "siamese-eval",
    {name: command.description for name, command in COMMANDS.items()},
    "Without --checkpoint the newest checkpoints/*/best.pt is judged; without --data its own",
    "validation people. A first look after training: siamese-eval roc",
    "On other people: siamese-eval roc faces/",
)


def _command(argv: Sequence[str]) -> None:
    name = choose_command(argv, list(COMMANDS), _HELP)
    if name is None:
        return
    command, arguments = COMMANDS[name], list(argv[1:])
    # A model may be a run's folder, so the pictures stand last there.
    words = ["a", "b", "data"] if name == "compare" else ["data"]
    arguments = name_arguments(arguments, words)
    settings = parse_settings(
        command.settings,
        arguments,
        prog=f"siamese-eval {name}",
        description=f"{command.description}.",
        short={},
        first="A B [FOLDER]" if name == "compare" else "[FOLDER]",
    )
    check_evaluation(settings)
    if name == "pairs" and settings.pairs is None:
        raise UserError("siamese-eval pairs needs --pairs FILE: a list of pairs to judge")
    require_places(settings, _PLACES)
    if settings.out is not None:
        _require_place(Path(settings.out), is_folder=name != "embed")
    preload(f"siamese.report.{command.work}")
    command.run(settings)


_PLACES = {
    "checkpoint": "no such checkpoint",
    "data": "no such folder",
    "embeddings": "no such file",
    "pairs": "no such file",
    "against": "no such checkpoint or embeddings",
    "a": "no such checkpoint or embeddings",
    "b": "no such checkpoint or embeddings",
}


def _require_place(out: Path, *, is_folder: bool) -> None:
    """Notice before hours of embedding that results cannot be written there."""
    if is_folder and os.path.isfile(out):
        raise UserError(f"--out {out}: is a file; give the folder to write into")
    above = next(folder for folder in (out, *out.absolute().parents) if os.path.exists(folder))
    if above != out and not above.is_dir():
        raise UserError(f"--out {out}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK):
        raise UserError(f"--out {out}: {above} may not be written to; choose another place")


def main() -> NoReturn:
    """Entry point of ``siamese-eval``."""
    run_command(_command, "siamese-eval")
