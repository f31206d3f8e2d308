"""What studies need to know of a task, so that they train and compare every task alike.

A task describes itself once, in a module that loads no torch: ``face_spec`` and ``class_spec``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

_SPECS = ("siamese.tasks.classes.class_spec:CLASSES", "siamese.tasks.faces.face_spec:FACES")


@dataclass(frozen=True)
class Workload:
    """What a run computes, from its settings alone.

    ``outputs`` is the network's width (classes, or the embedding's dimension), ``size`` the side of
    its input in pixels, ``images`` the forward passes of the whole run, a training image counted
    ``TRAINING_STEP`` times; None where the data lies nowhere yet.
    """

    network: str
    options: Mapping[str, Any]
    drop_path: float
    outputs: int
    channels: int
    size: int
    images: float | None


# A training step costs a forward pass and, for the gradients, about two more.
TRAINING_STEP = 3


@dataclass(frozen=True)
class TaskSpec:
    """A task, as studies see it. Names of settings are dotted; functions take a run's settings.

    Attributes:
        name: in study files and results.
        settings: class of a run's settings.
        check: raises UserError where settings cannot work.
        training: ``module:function`` that trains a new run; importing it loads torch.
        resuming: ``module:function`` that continues a run.
        checkpoint: kind of its checkpoints; see ``siamese.models.checkpoint.KINDS``.
        is_tested: of a run's folder and its checkpoint's progress: whether a run whose epochs are
            done has nothing left to do.
        default_lr: learning rate where the settings have none.
        figures: of ``metrics.csv`` that can be compared, and whether less of each is better; the
            first is the default.
        selecting: the validation figure that chooses a run's epoch.
        report: which epoch's figure counts where a study does not say.
        parts: whether there are validation images, and whether there are test images.
        axes: what curves are drawn over: ``epochs``, ``images``, ``time``.
        immaterial: settings that do not change a result.
        movable: settings that a resumed run takes as they are now.
        folders: settings that name a folder of data or lists.
        data_folder: the one of them that the command line may set.
        written: where a run writes besides its logs and checkpoints, by setting; None: nowhere.
        network: the setting that names the network.
        subsets: settings that leave out images; null: all are used.
        small: the settings of ``--budget small``.
        prefix: what the names of runs begin with.
        data_name: the data, in a word or two.
        workload: see :class:`Workload`. Raises UserError where the network is unknown.
    """

    name: str
    settings: type[Any]
    check: Callable[[Any], None]
    training: str
    resuming: str
    checkpoint: str
    is_tested: Callable[[Path, Mapping[str, Any]], bool]
    default_lr: Callable[[Any], float]
    figures: Mapping[str, bool]
    selecting: Callable[[Any], str]
    report: Literal["last", "selected"]
    parts: Callable[[Any], tuple[bool, bool]]
    axes: tuple[str, ...]
    immaterial: Callable[[Any], frozenset[str]]
    movable: frozenset[str]
    folders: frozenset[str]
    data_folder: str
    written: Callable[[Any], Mapping[str, str | None]]
    network: str
    subsets: tuple[str, ...]
    small: Mapping[str, Any]
    prefix: Callable[[Any], str]
    data_name: Callable[[Any], str]
    workload: Callable[[Any], Workload]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its name: a process of its own looks it up again."""
        return task_spec, (self.name,)

    def train(self, settings: Any) -> Path:
        """Train a new run to its end; returns a checkpoint.

        Raises:
            UserError, Diverged, KeyboardInterrupt: as the task's own function.
        """
        return Path(_imported(self.training)(settings))

    def resume(self, name: str, checkpoints: str, parse: Callable[..., Any]) -> Path:
        """Continue a run from its ``last.pt``; arguments and errors are the task's function's."""
        return Path(_imported(self.resuming)(name, checkpoints, parse))

    def is_over(self, settings: Any, checkpoint: Path) -> bool:
        """Whether a run that has a checkpoint has nothing left to do.

        Raises:
            UserError: the checkpoint cannot be read.
        """
        from siamese.models.checkpoint import read_checkpoint

        content = read_checkpoint(
            checkpoint, self.checkpoint, keys=["progress"], limits=settings.limits
        )
        progress = content["progress"]
        done = int(progress["epoch"]) >= settings.trainer.epochs
        return done and self.is_tested(Path(settings.runs) / settings.name, progress)


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


@cache
def _all_specs() -> tuple[TaskSpec, ...]:
    return tuple(_imported(place) for place in _SPECS)


def task_names() -> list[str]:
    """The names of all tasks, the default first."""
    return [spec.name for spec in _all_specs()]


def task_spec(task: str | type[Any]) -> TaskSpec:
    """A task by its name, or by the class of its settings.

    Raises:
        KeyError: there is none.
    """
    for spec in _all_specs():
        if task in (spec.name, spec.settings):
            return spec
    raise KeyError(task)
