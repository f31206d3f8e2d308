"""Starting and resuming a run, for every task: what it learns it asks a :class:`TaskRuns`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from siamese.config import LimitSettings
from siamese.config.reading import build_settings, flat_settings
from siamese.errors import UserError
from siamese.files.writing import going_on
from siamese.models.checkpoint import read_checkpoint
from siamese.models.device import choose_device, choose_precision
from siamese.training.distribution import (
    Distribution,
    begun_run,
    is_restarted_by_torchrun,
    joined,
    telling_lost,
)
from siamese.training.loop import Loop, LoopOptions, Progress, Task
from siamese.training.monitoring import RunLog, write_settings
from siamese.training.optimizers import build_optimizer, parameter_groups
from siamese.training.runs import (
    at_work,
    find_checkpoint,
    free_name,
    goes_on_from,
    refuse_changes,
    refuse_far_places,
    refuse_other_home,
    take_name,
    way_on,
)
from siamese.training.schedules import lr_line
from siamese.training.sharing import SharedColumns

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunContext:
    """Where a run is being made; ``source``: the checkpoint that it goes on from, ``content``: its
    content.
    """

    device: torch.device
    distribution: Distribution
    say: Say
    source: Path | None = None
    content: Mapping[str, Any] | None = None


@dataclass
class Prepared:
    """A run that is about to begin: everything that its task decides."""

    settings: Any  # resolved; they are written down
    task: Task
    modules: dict[str, nn.Module]  # whose parameters learn, by the name of their group
    headline: list[str]  # lines that say what is trained
    watched: str | None  # figure that selects the best epoch; None: the last epoch counts
    open_log: Callable[[Path, int, int], RunLog]  # from folder, step, epoch
    begin: Callable[[Path], None]  # writes what a new run writes once, into its folder
    examples: Callable[[], torch.Tensor]  # uint8 or float in [0, 1], (N, C, H, W)
    notes: list[str]  # what weakens the run's figures
    next_step: str  # the command that comes next; ``{}`` is the checkpoint
    shared: SharedColumns | None = None  # parameter that the processes share out
    lr_factors: dict[str, float] = field(default_factory=dict)
    layer_decays: dict[str, float] = field(default_factory=dict)
    accumulate: int = 1  # micro-batches per optimizer step
    recalibration_batches: int = 0
    validate_every: int = 1
    smaller: str = LoopOptions.smaller
    scales_loss: bool = False
    # What is left to do after the last epoch, in the first process; given the epoch that counts.
    end: Callable[[int], list[str]] = lambda _: []
    unit: str = "images"
    written: str = "log, settings, metrics"


class TaskRuns(Protocol):
    """How the runs of a task are made."""

    kind: str  # of its checkpoints
    settings_class: type[Any]
    resume: str  # the command that continues a run
    anew: str  # what to do where a run cannot be continued
    may_change: frozenset[str]  # settings that may differ when a run goes on

    def check(self, settings: Any) -> None:
        """Refuse settings that cannot work; UserError."""

    def check_network(self, settings: Any) -> None:
        """Refuse a network or device that cannot do it, before any data is loaded; UserError."""

    def base_name(self, settings: Any) -> str:
        """What a run without a name is called before the time of its start."""

    def default_lr(self, settings: Any) -> tuple[float, str]:
        """The learning rate where none is set, and what it is the default of."""

    def check_content(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse a checkpoint whose description does not fit its weights; UserError."""

    def is_finished(self, settings: Any, progress: Mapping[str, Any]) -> bool:
        """Whether nothing is left to do after a run's last epoch."""

    def prepare(self, settings: Any, context: RunContext, data: Any) -> Prepared:
        """Build network, loss and batches, anew or from a checkpoint."""

    def load(self, settings: Any, context: RunContext) -> Any:
        """The data: what trains, selects and is tested."""


def start_run(runs: TaskRuns, settings: Any) -> Path:
    """Train a new run; returns the checkpoint that counts.

    That is ``best.pt`` where validation selects, else ``last.pt``. Under ``torchrun`` every process
    calls this; where it starts them again, the run goes on from its checkpoint.

    Raises:
        UserError: unusable data or settings.
        Diverged: the loss became NaN or infinite.
        KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or SIGHUP, after the state was saved.
    """
    runs.check_network(settings)
    begun = begun_run()
    if begun is not None:
        settings = replace(settings, name=begun)
        if (kept := goes_on_from(Path(settings.checkpoints) / begun)) is not None:
            return _go_on_restarted(runs, settings, kept)
    device = choose_device(settings.device)
    with joined(device.type) as distribution:
        context = _context(device, distribution)
        choose_precision(settings.trainer.precision, context.device)
        name = settings.name or free_name(
            runs.base_name(settings), settings.runs, settings.checkpoints
        )
        name = distribution.agree(name)
        if distribution.first and (
            taken := take_name(name, settings.runs, settings.checkpoints, runs.resume)
        ):
            print(taken)
        distribution.note_run(name)
        lr, reason = settings.optimizer.lr, "as set"
        if lr is None:
            lr, default = runs.default_lr(settings)
            reason = f"the default of {default}; `lr` sets another"
        context.say(lr_line(lr, reason, settings.optimizer, settings.schedule))
        settings = replace(settings, name=name, optimizer=replace(settings.optimizer, lr=lr))
        return _train(runs, settings, context)


def resume_run(
    runs: TaskRuns,
    target: str,
    checkpoints: str,
    parse: Callable[[dict[str, Any]], Any],
    limits: LimitSettings | None = None,
) -> Path:
    """Continue a run exactly where its checkpoint stands; returns as :func:`start_run`.

    ``target`` is a run's name, its folder with checkpoints, or a checkpoint file; ``parse`` lays
    the user's settings over the checkpoint's.

    Raises:
        UserError: there is no such run, it is over, or its settings cannot change so.
        Diverged, KeyboardInterrupt: as :func:`start_run`.
    """
    begun = begun_run()
    if begun is not None:
        kept = goes_on_from(Path(checkpoints) / begun)
        target = target if kept is None else str(kept)
    path = find_checkpoint(target, checkpoints, runs.resume)
    return _go_on(runs, path, parse, limits, restarted=begun is not None)


def _go_on(
    runs: TaskRuns,
    path: Path,
    parse: Callable[[dict[str, Any]], Any],
    limits: LimitSettings | None,
    *,
    restarted: bool,
) -> Path:
    """Continue a run from its checkpoint; one that is over is returned where torchrun goes on."""
    content = read_checkpoint(path, runs.kind, limits=limits)
    runs.check_content(path, content)
    # What is damaged is told here; the command line's parser takes its defaults as they are.
    flat = flat_settings(runs.settings_class, content["settings"], str(path))
    before = build_settings(runs.settings_class, flat, str(path))  # earlier runs knew fewer
    saved = {**content["settings"]}
    if "resume" in saved:
        saved["resume"] = None
    refuse_far_places(path, saved, parse)
    settings = parse(saved)
    if hasattr(settings, "resume"):
        settings = replace(settings, resume=None)
    settings = _as_chosen(settings, before)
    runs.check(settings)
    refuse_changes(before.as_dict(), settings.as_dict(), runs.may_change, runs.anew)
    refuse_other_home(path, settings.checkpoints, settings.name or "")
    lr = settings.optimizer.lr
    if lr is None:
        raise UserError(f"{path}: is damaged, its settings hold no learning rate; {runs.anew}")
    done, epochs = content["progress"]["epoch"], settings.trainer.epochs
    if epochs is None:
        raise UserError(f"{path}: is damaged, its settings hold no epochs; {runs.anew}")
    finished = done == epochs and runs.is_finished(settings, content["progress"])
    if finished and restarted:
        best = path.with_name("best.pt")
        return best if best.exists() else path
    if done > epochs or finished:
        raise UserError(f"{path}: all {done} epochs are done; raise `epochs` to go on")
    device = choose_device(settings.device)
    with joined(device.type) as distribution:
        context = _context(device, distribution, path, content)
        distribution.note_run(settings.name)
        context.say(lr_line(lr, "as the run began", settings.optimizer, settings.schedule))
        return _train(runs, settings, context)


_CHOSEN = (
    "trainer.precision",
    "trainer.channels_last",
    "trainer.epochs",
    "batches.people",
    "batches.images",
    "optimizer.betas",
    "augment.in_batches",
)


def _as_chosen(settings: Any, before: Any) -> Any:
    """What a run chose as it began stands where it is left to choose again."""
    for name in _CHOSEN:
        group, field_name = name.split(".")
        now = getattr(settings, group)
        if getattr(now, field_name, 0) in ("auto", None):
            chosen = getattr(getattr(before, group), field_name)
            settings = replace(settings, **{group: replace(now, **{field_name: chosen})})
    return settings


def _go_on_restarted(runs: TaskRuns, settings: Any, path: Path) -> Path:
    """Go on with the run that torchrun's processes began under the same settings."""
    places = {name: getattr(settings, name) for name in ("runs", "checkpoints")}

    def parse(saved: dict[str, Any]) -> Any:
        flat = flat_settings(runs.settings_class, saved, str(path))
        return replace(build_settings(runs.settings_class, flat, str(path)), **places)

    return _go_on(runs, path, parse, settings.limits, restarted=True)


def _context(
    device: torch.device,
    distribution: Distribution,
    source: Path | None = None,
    content: Mapping[str, Any] | None = None,
) -> RunContext:
    """Under torchrun each process takes the GPU of its number, and the first one speaks."""
    if distribution.world > 1 and device.type == "cuda":
        device = torch.device("cuda", distribution.local_rank)
    say: Say = print if distribution.first else lambda line: None
    return RunContext(device, distribution, say, source, content)


def _train(runs: TaskRuns, settings: Any, context: RunContext) -> Path:
    """Load, build and train, held against a second process at work on the same run."""

    def then() -> str:
        if is_restarted_by_torchrun():
            return "torchrun starts them again"
        return way_on(Path(settings.checkpoints) / settings.name, runs.resume)

    with telling_lost(then):
        return _train_together(runs, settings, context)


def _train_together(runs: TaskRuns, settings: Any, context: RunContext) -> Path:
    data = runs.load(settings, context)
    held = at_work(Path(settings.runs) / settings.name)
    with held if context.distribution.first else nullcontext():
        torch.manual_seed(settings.seed)
        prepared = runs.prepare(settings, context, data)
        if not context.distribution.first:  # dropout differs between processes
            torch.manual_seed(settings.seed + context.distribution.rank)
        return _run(runs, prepared, context)


def _run(runs: TaskRuns, prepared: Prepared, context: RunContext) -> Path:
    settings, distribution, say = prepared.settings, context.distribution, context.say
    folder = Path(settings.checkpoints) / str(settings.name)
    loop = _loop(runs, prepared, context, folder)
    chosen: Path = folder / ("best.pt" if prepared.watched else "last.pt")
    log = _open_log(prepared, loop, context, folder) if distribution.first else None
    for line in [*prepared.headline, *(f"note: {note}" for note in prepared.notes)]:
        say(line)
    say(f"watch: tensorboard --logdir {settings.runs}")
    with log or nullcontext():
        if log is not None:
            for note in prepared.notes:
                log.note(note)
            if context.content is None:
                log.training_grid(prepared.examples())
        if not loop.run(log):
            say(f"saved; go on with: {runs.resume} {folder / 'last.pt'}")
            raise KeyboardInterrupt
        epoch = loop.progress.best_epoch if prepared.watched else loop.progress.epoch
        with going_on(lambda: f"the training itself is over, its checkpoint is {chosen}"):
            if log is not None:
                log.finish(epoch)
    say(_done(prepared, loop.progress))
    if distribution.first:
        with going_on(
            lambda: f"the training itself is over, {runs.resume} {settings.name} ends the run"
        ):
            for line in prepared.end(epoch):
                say(line)
    say(
        f"checkpoint: {chosen}\n{prepared.written}: {Path(settings.runs) / settings.name}\n"
        f"next: {prepared.next_step.format(chosen)}"
    )
    return chosen


def _loop(runs: TaskRuns, prepared: Prepared, context: RunContext, folder: Path) -> Loop:
    """The loop with its optimizer, put where the checkpoint stands."""
    settings, task = prepared.settings, prepared.task
    trainer, lr = settings.trainer, settings.optimizer.lr
    groups = parameter_groups(
        prepared.modules,
        settings.optimizer.weight_decay,
        lr,
        prepared.lr_factors,
        settings.optimizer.decay_norms,
        layer_decays=prepared.layer_decays,
    )
    steps = -(-task.batches_per_epoch() // prepared.accumulate)
    optimizer, schedule = build_optimizer(
        settings.optimizer, settings.schedule, groups, lr, steps, trainer.epochs
    )
    options = LoopOptions(
        epochs=trainer.epochs,
        accumulate=prepared.accumulate,
        clip=settings.optimizer.clip,
        select=prepared.watched,
        recalibration_batches=prepared.recalibration_batches,
        log_every=trainer.log_every,
        folder=folder,
        validate_every=prepared.validate_every,
        resume=runs.resume,
        smaller=prepared.smaller,
        seed=settings.seed,
        trace=Path(settings.runs) / settings.name / "trace.json"
        if trainer.profile and context.distribution.first
        else None,
    )
    scaler = _scaler(prepared, context.device)
    loop = Loop(task, optimizer, schedule, scaler, options, context.distribution, prepared.shared)
    if context.content is not None:
        assert context.source is not None
        best = context.source.with_name("best.pt")
        other = best.exists() and best != context.source
        instead = f"resume from best.pt, or {runs.anew}" if other else runs.anew
        loop.load(context.content, settings.name, instead)
    return loop


def _scaler(prepared: Prepared, device: torch.device) -> torch.amp.GradScaler:
    """What scales the loss in fp16."""
    if prepared.shared is None:
        return torch.amp.GradScaler(device.type, enabled=prepared.scales_loss)
    # One that finds a broken gradient of another process's columns, too. It takes a second to load.
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    return ShardedGradScaler(device.type, enabled=prepared.scales_loss)


def _open_log(prepared: Prepared, loop: Loop, context: RunContext, folder: Path) -> RunLog:
    """Write what stands beside the log, then open it at the point where the run goes on."""
    place = Path(prepared.settings.runs) / prepared.settings.name
    begun = context.content is not None and os.path.lexists(place / "settings.yaml")
    write_settings(place, prepared.settings.as_dict())
    if not begun:
        prepared.begin(place)
    folder.mkdir(parents=True, exist_ok=True)  # refused now, not after an epoch
    return prepared.open_log(place, loop.progress.step, loop.progress.epoch)


def _done(prepared: Prepared, progress: Progress) -> str:
    line = f"done: {progress.images} {prepared.unit} in {progress.seconds:.0f} s of training; "
    if prepared.watched is None:
        return line + "no validation images: the last epoch counts"
    selected = prepared.watched.replace("_", " ")
    notes = "".join(f" (note: {note})" for note in prepared.notes)
    return f"{line}best epoch {progress.best_epoch} with {selected} {progress.best:.4f}{notes}"
