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
    """A task, as studies see it. Names of settings are dotted; functions take a run's settings."""

    name: str  # in study files and results
    settings: type[Any]
    check: Callable[[Any], None]
    training: str  # ``module:function``; importing it loads torch, as the next one
    resuming: str
    checkpoint: str  # kind, see ``siamese.models.checkpoint.KINDS``
    # Of a run's folder and its checkpoint's progress: is nothing left to do after its epochs?
    is_tested: Callable[[Path, Mapping[str, Any]], bool]
    default_lr: Callable[[Any], float]
    figures: Mapping[str, bool]  # of ``metrics.csv``, whether less is better; the default first
    selecting: Callable[[Any], str]  # the validation figure that chooses a run's epoch
    report: Literal["last", "selected"]  # which epoch's figure counts where a study does not say
    parts: Callable[[Any], tuple[bool, bool]]  # are there validation images, test images?
    axes: tuple[str, ...]  # what curves are drawn over: epochs, images, time
    immaterial: Callable[[Any], frozenset[str]]  # settings that do not change a result
    movable: frozenset[str]  # settings that a resumed run takes as they are now
    folders: frozenset[str]  # settings that name a folder or table of data
    data_folder: str  # the one of them that the command line may set
    written: Callable[[Any], Mapping[str, str | None]]  # further places that a run writes to
    network: str  # the setting that names the network
    subsets: tuple[str, ...]  # settings that leave out images
    small: Mapping[str, Any]  # the settings of ``--budget small``
    prefix: Callable[[Any], str]  # what the names of runs begin with
    data_name: Callable[[Any], str]
    workload: Callable[[Any], Workload]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its name: a process of its own looks it up again."""
        return task_spec, (self.name,)

    def train(self, settings: Any) -> Path:
        """Train a new run to its end; returns a checkpoint."""
        return Path(_imported(self.training)(settings))

    def resume(self, name: str, checkpoints: str, parse: Callable[..., Any]) -> Path:
        """Continue a run from its ``last.pt``; arguments and errors are the task's function's."""
        return Path(_imported(self.resuming)(name, checkpoints, parse))

    def is_over(self, settings: Any, checkpoint: Path) -> bool:
        """Whether a run that has a checkpoint has nothing left to do."""
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
    """A task by its name, or by the class of its settings; KeyError where there is none."""
    for spec in _all_specs():
        if task in (spec.name, spec.settings):
            return spec
    raise KeyError(task)
