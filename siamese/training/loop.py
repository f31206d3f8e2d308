"""The training loop: one, for every task.

It knows modes, precision, steps, checkpoints and interruption; what a batch is, what its loss is
and how a model is judged it asks a :class:`Task`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.profiler import record_function
from tqdm import tqdm

from siamese.data.batches import derive_seed
from siamese.errors import Diverged, UserError, telling_lack
from siamese.files.writing import going_on
from siamese.models.checkpoint import write_checkpoint
from siamese.models.embedder import batch_norms
from siamese.training.distribution import SINGLE, Distribution
from siamese.training.interruption import StopRequest, stop_request
from siamese.training.optimizers import PairedOptimizer
from siamese.training.profiling import StepProfile, waited
from siamese.training.recalibration import recalibrate
from siamese.training.resuming import require_alike
from siamese.training.runs import way_on
from siamese.training.sharing import SharedColumns

Figures = dict[str, float]


@dataclass
class StepLoss:
    """One batch's loss (a scalar with its graph), its images over all processes, and numbers for
    the log.

    Numbers that are cheap come with every batch, others when they were asked for; tensors stay on
    their device until the loop reads them. ``weight``: the batch's images over the mean of the
    batches that make one step: where they differ in size, each image still counts alike.
    """

    value: torch.Tensor
    images: int
    details: Mapping[str, float | torch.Tensor] = field(default_factory=dict)
    weight: float = 1.0


class Task(Protocol):
    """What is learnt: batches, their loss, and a judgement on unseen data."""

    @property
    def model(self) -> nn.Module:
        """The network."""

    @property
    def loss(self) -> nn.Module:
        """The loss; its parameters, where it has any, learn and are saved, too."""

    def start_epoch(self, epoch: int, optimizer: PairedOptimizer) -> None:
        """Prepare an epoch, counted from 0, e.g. thaw layers."""

    def batches(self, epoch: int, first_batch: int) -> Iterable[Any]:
        """The epoch's batches from some batch on, in an order that (seed, epoch) alone decide."""

    def batches_per_epoch(self) -> int:
        """Number of batches of a whole epoch."""

    def step_loss(self, batch: Any, details: bool) -> StepLoss:
        """Forward pass and loss of one batch; ``details`` asks for the log's further numbers."""

    def recalibration_inputs(self, batches: int) -> Iterator[torch.Tensor]:
        """Fixed training inputs that batch norms are measured on."""

    def validate(self) -> Figures:
        """Judge the model as it stands on unseen data; what is called ``test_`` selects nothing."""

    def describe(self) -> Mapping[str, Any]:
        """The task's part of a checkpoint: embedder, settings, split."""


class Observer(Protocol):
    """Who watches, in the first process: TensorBoard, files, the terminal."""

    def step(self, step: int, figures: Figures) -> None:
        """Numbers of one logged step."""

    def epoch(self, row: Figures, best: bool) -> None:
        """Numbers of a finished epoch, and whether its weights are the best so far."""


@dataclass
class Progress:
    """How far a run is; all that the loop itself needs to go on from a checkpoint.

    ``epoch`` counts finished epochs, ``batch`` the batches done of the running one, ``seconds`` the
    time in training steps and waiting for batches. ``best`` is NaN before the first validation, and
    ``best_epoch``, from 1, is 0. Sums are of the running epoch; ``details`` of them were detailed.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best: float = math.nan
    best_epoch: int = 0
    loss_sum: float = 0.0
    detail_sums: Figures = field(default_factory=dict)
    details: int = 0


# Figures of which less is better; of all others more is.
_LESS_IS_BETTER = frozenset({"eer", "validation_error", "validation_loss"})


@dataclass(frozen=True)
class LoopOptions:
    """Settings of the loop; see :class:`siamese.config.TrainerSettings` for their meaning.

    ``select`` None: nothing selects, ``best.pt`` is not written and the last epoch counts.
    ``resume``: the command that continues a run. ``smaller``: the settings that need less memory.
    ``seed``: of the run. ``trace``: where some steps are profiled to; None: they are not.
    """

    epochs: int
    accumulate: int
    clip: float | None
    select: str | None
    recalibration_batches: int
    log_every: int
    folder: Path
    validate_every: int = 1
    resume: str = "`resume`"
    smaller: str = "settings of batches and pictures, in a new run"
    seed: int = 0
    trace: Path | None = None


class Loop:
    """A run: the task, its optimizer, and how far they are; the first process writes.

    ``schedule`` is stepped after every optimizer step (None: constant); ``scaler`` is enabled in
    float16 only. ``shared``: a parameter of which each process holds some columns.
    """

    def __init__(
        self,
        task: Task,
        optimizer: PairedOptimizer,
        schedule: LambdaLR | None,
        scaler: torch.amp.GradScaler,
        options: LoopOptions,
        distribution: Distribution = SINGLE,
        shared: SharedColumns | None = None,
    ):
        self.task, self.optimizer, self.schedule = task, optimizer, schedule
        self.scaler, self.options, self.distribution = scaler, options, distribution
        self.shared = shared
        self.progress = Progress()
        self._marked = (0.0, 0)  # time and images seen at the last logged step
        self._unread: list[StepLoss] = []  # losses that still lie on the device

    def run(self, observer: Observer | None = None) -> bool:
        """Train to the last epoch; False when interrupted (``last.pt`` holds the exact state).

        Raises:
            UserError: the loss became NaN or infinite, memory ran out, or something could not be
                written; the checkpoints on disk stay as they are, and how to go on is said.
        """
        self.observer = observer

        def lacking(missing: str) -> str:
            return f"{missing} ({self.options.smaller}); then {self._way_on()}"

        with (
            telling_lack(lacking),
            going_on(lambda: f"free some space, then {self._way_on()}"),
        ):
            return self._run()

    def _way_on(self) -> str:
        return way_on(self.options.folder, self.options.resume)

    def _run(self) -> bool:
        trace = self.options.trace
        profiled = nullcontext() if trace is None else StepProfile(trace, tqdm.write)
        with stop_request() as stop, profiled as self._profile:
            while self.progress.epoch < self.options.epochs:
                self.task.start_epoch(self.progress.epoch, self.optimizer)
                if not self._train_epoch(stop):
                    self._save("last.pt", {})
                    return False
                self._finish_epoch()
                if self.progress.epoch < self.options.epochs and self._stops(stop):
                    return False
        return True

    def _train_epoch(self, stop: StopRequest) -> bool:
        progress = self.progress
        self.optimizer.train()
        self.task.model.train()
        batches = self.task.batches(progress.epoch, progress.batch)
        total = self.task.batches_per_epoch()
        started = time.perf_counter()
        self._marked = (started, progress.images)
        title = f"epoch {progress.epoch + 1}/{self.options.epochs}"
        with tqdm(
            total=total,
            initial=progress.batch,
            desc=title,
            unit="batch",
            leave=False,
            # no bar where nobody watches, and one for all processes
            disable=None if self.distribution.first else True,
        ) as bar:
            for batch in waited(batches):
                last_of_step = (progress.batch + 1) % self.options.accumulate == 0
                last_of_step = last_of_step or progress.batch + 1 == total
                images = self._batch_step(batch, last_of_step, total)
                now = time.perf_counter()
                speed = images / max(now - started, 1e-9)
                progress.seconds += now - started
                started = now
                if not self._unread:
                    loss = progress.loss_sum / progress.batch
                    bar.set_postfix_str(f"loss {loss:.4f}, {speed:.0f} img/s", refresh=False)
                bar.update()
                if self._profile is not None:
                    self._profile.step()
                if last_of_step and progress.batch < total and self._stops(stop):
                    self._read_losses()
                    return False
        return True

    def _stops(self, stop: StopRequest) -> bool:
        """Whether any process was asked to stop; all of them learn of it at the same step.

        Asking each other costs time, so several processes do it as often as they log.
        """
        alone = self.distribution.world == 1
        if alone or self.progress.step % self.options.log_every == 0 or self.progress.batch == 0:
            return self.distribution.any(stop.requested)
        return False

    def _batch_step(self, batch: Any, last_of_step: bool, total: int) -> int:
        """One batch, and the optimizer's step when it is the last of its group."""
        progress, options = self.progress, self.options
        logged = last_of_step and progress.step % options.log_every == 0
        result = self.task.step_loss(batch, logged)
        first_of_group = progress.batch - progress.batch % options.accumulate
        group = min(options.accumulate, total - first_of_group)
        # A broken loss breaks no weights that count: it is read before anything is saved. On a CPU
        # that is at once; a GPU would have to wait for it.
        self._unread.append(StepLoss(result.value.detach(), result.images, result.details))
        if logged or result.value.device.type == "cpu" or progress.batch + 1 == total:
            self._read_losses()
        with record_function("backward"):
            self.scaler.scale(result.value * (result.weight / group)).backward()  # type: ignore[no-untyped-call]
        progress.batch += 1
        progress.images += result.images
        if last_of_step:
            with record_function("optimizer"):
                norm = self._optimizer_step(measure=logged)
            if logged:
                self._log(result, norm)
            progress.step += 1
        return result.images

    def _read_losses(self) -> None:
        """Add the losses that lie on the device to the progress; refuse a broken one."""
        progress = self.progress
        for result in self._unread:
            value = self.distribution.mean(float(result.value))
            if not math.isfinite(value):
                raise self._diverged(value)
            progress.loss_sum += value
            for name, number in result.details.items():
                mean = self.distribution.mean(float(number))
                progress.detail_sums[name] = progress.detail_sums.get(name, 0.0) + mean
            progress.details += bool(result.details)
        self._unread = []

    def _optimizer_step(self, measure: bool) -> float:
        """Clip, step, schedule; returns the gradient norm where it was measured, else NaN."""
        norm = math.nan
        self.scaler.unscale_(self.optimizer.inner)
        if self.options.clip is not None or measure:
            limit = self.options.clip if self.options.clip is not None else math.inf
            clip = nn.utils.clip_grad_norm_ if self.shared is None else self.shared.clip
            found = clip(self.optimizer.parameters(), limit)
            norm = float(found) if measure else norm  # reading it makes a GPU wait
        self.optimizer.step(self.scaler)
        self.optimizer.inner.zero_grad(set_to_none=True)
        if self.schedule is not None:
            self.schedule.step()
        return norm

    def _log(self, result: StepLoss, norm: float) -> None:
        progress = self.progress
        loss, details = float(result.value.detach()), result.details
        now, (then, images) = time.perf_counter(), self._marked
        self._marked = (now, progress.images)
        figures = {"loss": loss, "lr": self.optimizer.lr, "gradient_norm": norm}
        figures |= {name: float(number) for name, number in details.items()}
        figures["images_per_second"] = (progress.images - images) / max(now - then, 1e-9)
        if self.observer is not None:
            self.observer.step(progress.step, figures)

    def _finish_epoch(self) -> None:
        """Evaluation weights in, measure batch norms, validate, save those very weights."""
        progress, options = self.progress, self.options
        self.optimizer.eval()
        last = progress.epoch + 1 == options.epochs
        judged = last or (progress.epoch + 1) % options.validate_every == 0
        if judged and options.recalibration_batches:
            inputs = self.task.recalibration_inputs(options.recalibration_batches)
            recalibrate(self.task.model, inputs)
        # Each process measured its own images; they judge, and one saves, the same network.
        norms = list(batch_norms(self.task.model))
        measured = [kept for norm in norms for kept in (norm.running_mean, norm.running_var)]
        self.distribution.average(kept for kept in measured if kept is not None)
        weights = self.optimizer.parameters()
        if self.distribution.any(not all(bool(torch.isfinite(p).all()) for p in weights)):
            raise self._diverged(math.nan)  # the epoch's last step broke the weights
        figures = self.task.validate() if judged else {}
        row: Figures = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "images_seen": progress.images,
            "seconds": progress.seconds,
            "lr": self.optimizer.lr,
            "train_loss": progress.loss_sum / progress.batch,
        }
        for name, total in progress.detail_sums.items():
            row[f"train_{name}"] = total / progress.details
        row.update(figures)
        progress.epoch += 1
        best = judged and options.select is not None and self._is_best(figures[options.select])
        if best and options.select is not None:
            progress.best, progress.best_epoch = figures[options.select], progress.epoch
        progress.batch, progress.loss_sum = 0, 0.0
        progress.detail_sums, progress.details = {}, 0
        if self.observer is not None:
            self.observer.epoch(row, best)
        if best:
            self._save("best.pt", row)
        self._save("last.pt", row)

    def _is_best(self, value: float) -> bool:
        best = self.progress.best
        if math.isnan(best):
            return True
        return value < best if self.options.select in _LESS_IS_BETTER else value > best

    def _diverged(self, value: float) -> Diverged:
        progress = self.progress
        written = (self.options.folder / "last.pt").exists()
        kept = "the last good checkpoint stands" if written else "no checkpoint was written"
        return Diverged(
            f"the loss is {value} at step {progress.step + 1} (epoch {progress.epoch + 1}, lr "
            f"{self.optimizer.lr:g}): training stopped, {kept} in {self.options.folder}; try a "
            "lower `lr`, `optimizer.clip` 1, or `precision` fp32"
        )

    def _save(self, name: str, figures: Figures) -> None:
        if not self.distribution.first and self.shared is None:
            return
        self.optimizer.eval()
        self.task.model.eval()
        content = {
            **self.task.describe(),
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "train_weights": self.optimizer.train_weights(),
            "loss": self.task.loss.state_dict(),
            "scheduler": self.schedule.state_dict() if self.schedule is not None else {},
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "random": random_states(),
            "figures": figures,
        }
        if self.shared is not None:
            content = self.shared.gathered(content, self.optimizer.parameters())
        if self.distribution.first:
            write_checkpoint(self.options.folder / name, content)

    def load(self, content: Mapping[str, Any], name: str, way_on: str) -> None:
        """Continue exactly where a checkpoint of the same run stands; UserError where it does not
        fit.
        """
        try:
            self._load(content)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError):
            raise UserError(
                f"the checkpoint of {name} is damaged or does not fit its settings: {way_on}"
            ) from None

    def _load(self, content: Mapping[str, Any]) -> None:
        if self.shared is not None:
            content = self.shared.cut(content, self.optimizer.parameters())
        self.task.model.load_state_dict(content["model"])
        self.task.loss.load_state_dict(content["loss"])
        self.optimizer.load_state_dict(content["optimizer"], content["train_weights"])
        if self.schedule is not None:
            require_alike(self.schedule.state_dict(), content["scheduler"])
            self.schedule.load_state_dict(content["scheduler"])
        if content["scaler"]:  # empty when saved in another precision, e.g. on another device
            require_alike(self.scaler.state_dict() or content["scaler"], content["scaler"])
            self.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        set_random_states(content["random"])
        if not self.distribution.first:  # the saved random state is the first process's
            torch.manual_seed(
                derive_seed(self.options.seed, self.distribution.rank, self.progress.step)
            )


def random_states() -> dict[str, Any]:
    """States of torch's generators, as tensors."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put :func:`random_states` back; generators of GPUs that are missing here are left out."""
    torch.set_rng_state(states["cpu"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
