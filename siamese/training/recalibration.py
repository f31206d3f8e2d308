"""Measure batch-norm statistics anew for the weights that are validated and saved."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn

from siamese.models.embedder import batch_norms


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[torch.Tensor]) -> int:
    """Set the running statistics of every training batch norm from some batches, in float32.

    Averaged weights (schedule-free, EMA) never saw a training step, so the running statistics
    belong to other weights. Each layer gets the mean of the per-batch means and unbiased variances
    (PyTorch's ``momentum=None``); momentum and modes are restored after, and no random state moves.
    Layers in eval mode when the model is in train mode (frozen ones) stay untouched. Returns the
    batches used.
    """
    model.train()
    norms = [norm for norm in batch_norms(model) if norm.training]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    used = 0
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        try:
            for images in batches:
                if used == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None
                with _full_precision(), torch.autocast(images.device.type, enabled=False):
                    model(images)
                used += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return used


def _full_precision() -> AbstractContextManager[None]:
    """Convolutions without TF32; cuDNN stays on, and chooses its algorithms as before."""
    cudnn = torch.backends.cudnn
    # What is not given gets the function's own default: that of enabled would turn cuDNN off.
    context: AbstractContextManager[None] = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        benchmark_limit=cudnn.benchmark_limit,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    return context
