"""The largest batch that fits a GPU, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from siamese.config import OptimizerSettings
from siamese.errors import UserError, lack
from siamese.training.distribution import Distribution
from siamese.training.probing import untouched

# Of the GPU's memory, left for what an allocator loses between its pieces.
_SPARE = 0.1
# Numbers that optimizers keep about each parameter; those that are not named keep two moments.
_KEPT = {"sgd": 1, "lars": 1, "sgd_schedulefree": 1, "amsgrad": 3}
# Others that may lie there during a step: the gradients of an accumulated one, what the optimizer
# computes in between, and the training weights while averaged ones are validated.
_BESIDE = 3


def require_gpu(device: torch.device) -> None:
    """Refuse to look for the largest batch where nothing says that one does not fit; UserError."""
    if device.type != "cuda":
        raise UserError(
            f"`batches.people` auto: needs a GPU, as {device.type} gets slow rather than refuse a "
            "batch that is too large; set a number, such as 8"
        )


def kept_bytes(
    modules: Sequence[nn.Module], optimizer: OptimizerSettings, distribution: Distribution
) -> int:
    """At most so much memory is needed beside parameters and activations of a training step."""
    numbers = _KEPT.get(optimizer.name, 2) + _BESIDE
    numbers += (optimizer.ema is not None) + (optimizer.lookahead > 0)
    numbers += distribution.world > 1  # gradients on their way to the other processes
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return numbers * sum(p.numel() * max(4, p.element_size()) for p in parameters)


def largest_fitting(
    step: Callable[[int], None],
    least: int,
    most: int,
    *,
    modules: Sequence[nn.Module],
    kept: int,
    device: torch.device,
    distribution: Distribution,
) -> int | None:
    """The largest size of a batch with which a training step fits the GPUs of all processes.

    The modules and every random state are as before after that.

    Args:
        step: one forward and backward pass with a batch of a given size. It must not wait for other
            processes, whose step may have failed.
        least: size to begin with.
        most: largest size that is wanted.
        modules: whose gradients and buffers the step changes.
        kept: bytes that training needs beside the step.
        device: where it takes place.
        distribution: each of its processes must call this.

    Returns:
        The size; None: not even ``least`` fits.
    """

    def fits(size: int) -> bool:
        try:
            with untouched(modules, device), _set_aside(kept, device):
                step(size)
            done = True
        except RuntimeError as error:
            # Kernels have limits of their own, too, and refuse what is too large for them.
            if size == least and not _lacks_memory(error):
                raise
            done = False
        # Not before the error is gone, whose traceback holds what the step had made.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return not distribution.any(not done)

    return search(fits, least, most)


def search(fits: Callable[[int], bool], least: int, most: int) -> int | None:
    """The largest number from ``least`` to ``most`` that fits, as all below it do; None: not one.

    Doubles until one does not fit, then halves what is left; no number is tried twice.
    """
    if not fits(least):
        return None
    largest, too_large = least, most + 1
    doubling = True
    while largest + 1 < too_large:
        tried = min(2 * largest, most) if doubling else (largest + too_large) // 2
        if fits(tried):
            largest = tried
        else:
            too_large, doubling = tried, False
    return largest


def spare_bytes(device: torch.device) -> int:
    """Memory of a GPU that no batch is planned to take."""
    return int(_SPARE * torch.cuda.get_device_properties(device).total_memory)


def _lacks_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or lack(error) is not None


@contextmanager
def _set_aside(size: int, device: torch.device) -> Iterator[None]:
    """Inside, so many bytes of a device's memory are taken."""
    kept = torch.empty(size, dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del kept
