"""One training run per fold: a checkpoint's recipe without the people whom it will be judged on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from glob import glob
from pathlib import Path

from siamese.config import (
    CurveSettings,
    SplitSettings,
    ThresholdSettings,
    TrainSettings,
    scoring_title,
)
from siamese.config.reading import build_settings, flatten
from siamese.data.folder import FaceFolder
from siamese.data.identity_folds import Fold, folds_by_person, pairs_of_people
from siamese.data.split_lists import list_content, pictures_by_person
from siamese.errors import UserError, first_few
from siamese.files.writing import replacing
from siamese.models.exported import is_exported
from siamese.report.embedding_sources import Model, load_model, own_people
from siamese.report.threshold_choice import scoring_to_choose_for
from siamese.studies.expand import Run, settings_hash
from siamese.studies.running import Say, make_run, status
from siamese.tasks.task_spec import TaskSpec, task_spec
from siamese.verification.metrics import supported_fmr


def fold_checkpoints(
    settings: CurveSettings | ThresholdSettings,
    trainer: TaskSpec | None = None,
    say: Say = print,
) -> list[Path]:
    """The checkpoint of every fold: those that the settings name, else trained, or gone on with.

    The runs, and the lists of who does what, lie in folders ``folds`` of the checkpoint's own run.
    Complete runs are not made again. ``trainer`` None: as siamese-train does.

    Raises:
        UserError: too few people; checkpoints that do not match; a run that could not be made.
        KeyboardInterrupt: stopped, after the state was saved.
    """
    assert settings.folds is not None, "asked for"
    if settings.fold_checkpoints is not None:
        return _given(settings.fold_checkpoints, settings.folds)
    model = load_model(settings)
    if is_exported(model.path):
        raise UserError(
            f"{model.path}: an exported model does not say how it was trained; give `folds` the "
            "checkpoint"
        )
    _require_cosine(settings, model)
    pictures, root = _everybody(model, settings.data)
    counts = {name: len(paths) for name, paths in pictures.items()}
    if isinstance(settings, ThresholdSettings):
        _require_support(len(counts), settings.folds, settings.target_fmr)
    recipe = _recipe(model)
    folds = folds_by_person(counts, settings.folds, recipe.split.validation, recipe.split_seed)
    runs = [
        _run(settings, model, recipe, root, pictures, fold, number)
        for number, fold in enumerate(folds, 1)
    ]
    done = sum(status(run) == "done" for run in runs)
    say(
        f"{len(runs)} folds of {len(counts)} people, the recipe of {model.path}: {done} trained "
        f"already, {len(runs) - done} to do; a stopped command goes on where it was"
    )
    if model.content["settings"].get("clean") is not None:
        say(
            "note: what `clean` left out of training is left out of the folds' test people, too, "
            "so their figures may flatter"
        )
    for run in runs:
        if status(run) != "done":
            say(run.label)
            make_run(run, trainer or task_spec("face"))
        if status(run) == "diverged":
            raise UserError(f"{run.name}: {run.label} diverged; train with a lower `optimizer.lr`")
    return [run.checkpoints / "best.pt" for run in runs]


def _require_cosine(settings: CurveSettings | ThresholdSettings, model: Model) -> None:
    """UserError, before hours of training, where the folds' models would need a fitted scoring."""
    name = scoring_to_choose_for(model, settings.scoring)
    if name != "cosine":
        raise UserError(
            f"`scoring` {name}: models that `folds` trains hold no {scoring_title(name)}; give "
            f"`scoring` cosine, or `fold_checkpoints` of models for which siamese-eval {name} has "
            "fitted it"
        )


def _given(pattern: str, folds: int) -> list[Path]:
    paths = sorted(Path(path) for path in glob(pattern, recursive=True))
    paths = [path / "best.pt" if path.is_dir() else path for path in paths]
    if len(paths) != folds:
        matching = f"{len(paths)} files match ({first_few([str(path) for path in paths])})"
        raise UserError(
            f"`fold_checkpoints` {pattern}: `folds` {folds} needs {folds} checkpoints, "
            + (matching if paths else "nothing matches")
        )
    return paths


def _everybody(model: Model, data: str | None) -> tuple[dict[str, list[str]], Path]:
    """Every person of the checkpoint's split with their pictures, and the one folder of these."""
    folders: list[FaceFolder] = [own_people(model, part, data) for part in model.content["split"]]
    roots = {folder.root.resolve() for folder in folders}
    if len(roots) > 1:
        raise UserError(
            f"{model.path}: its people come from several folders ("
            f"{first_few(sorted(str(root) for root in roots))}); `folds` needs one folder of "
            "everybody: put them together, or train one model per fold and give "
            "`fold_checkpoints`"
        )
    pictures: dict[str, list[str]] = {}
    for folder in folders:
        pictures |= pictures_by_person(folder)
    return dict(sorted(pictures.items())), folders[0].root


def _require_support(people: int, folds: int, fmr: float) -> None:
    """UserError, before hours of training, where the pairs of people are too few for an FMR."""
    lowest = f"{supported_fmr(pairs_of_people(people, folds)):.1e}"
    if fmr >= float(lowest):
        return
    halves = supported_fmr(pairs_of_people(people, 2))
    fewer = f" (`folds` 2: {halves:.1e})" if halves < float(lowest) else ""
    raise UserError(
        f"`target_fmr` {fmr:g}: {people} people in {folds} folds support FMR >= {lowest}{fewer}; "
        "ask for that, or add people"
    )


def _recipe(model: Model) -> TrainSettings:
    kind = TrainSettings
    saved = model.content["settings"]
    recipe: TrainSettings = build_settings(kind, flatten(kind, saved), str(model.path))
    if recipe.trainer.epochs is None:
        raise UserError(f"{model.path}: is damaged, its settings hold no epochs; train anew")
    return recipe


def _run(
    settings: CurveSettings | ThresholdSettings,
    model: Model,
    recipe: TrainSettings,
    root: Path,
    pictures: dict[str, list[str]],
    fold: Fold,
    number: int,
) -> Run:
    """The training run of a fold, its lists written."""
    base = model.path.parent
    parts = {part: {name: pictures[name] for name in names} for part, names in fold.parts().items()}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    run = base.resolve().name
    place = Path(settings.runs) / run / "folds"
    lists = place / f"lists-{number}of{settings.folds}-{digest}"
    for part, people in parts.items():
        with replacing(lists / f"{part}.csv") as temporary:
            temporary.write_bytes(list_content(people))
    fold_settings = replace(
        recipe,
        data=str(root),
        clean=None,  # the checkpoint's own pictures are without them already
        split=SplitSettings(lists=str(lists)),
        trainer=replace(recipe.trainer, test_curve=False),
        runs=str(place),
        checkpoints=str(base / "folds"),  # not among those that the newest is looked for in
        device=settings.device,
        cache=settings.cache,
        resume=None,
        name=None,
    )
    code = settings_hash(fold_settings)
    fold_settings.name = f"{run}-fold{number}of{settings.folds}-{code}"
    return Run(f"fold {number} of {settings.folds}", recipe.seed, fold_settings, code)
