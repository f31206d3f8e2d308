"""Batch norms over a whole batch, of which each process has some pictures."""

from __future__ import annotations

import torch
from torch import nn

from siamese.libraries import timm


def synchronise_batch_norms(
    network: nn.Module, device: torch.device, world: int, chunk: int | None
) -> bool:
    """Let batch norms see the pictures of all processes, where they can; returns whether they do.

    They do on several GPUs: torch has such batch norms for no CPU. Where pictures pass in chunks
    they do not, as processes with different numbers of chunks would wait for each other for ever,
    nor where a network has batch norms of a kind of its own, which would lose what is its own.
    Weights, buffers and their names stay the same, so checkpoints are those of the plain network.
    """
    known = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, timm.layers.BatchNormAct2d)
    norms = (one for one in network.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm))
    if device.type != "cuda" or world == 1 or chunk is not None:
        return False
    if not all(type(norm) in known for norm in norms):
        return False
    # torch's own conversion loses the activation that many of timm's batch norms hold.
    timm.layers.convert_sync_batchnorm(network)
    return True
