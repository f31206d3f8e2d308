"""What a network costs: its parameters and its multiply-accumulates per image."""

from __future__ import annotations

import copy

import torch
from torch import nn


def count_cost(network: nn.Module, in_channels: int, image_size: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one image (in_channels, image_size, image_size).

    Counted are convolutions and matrix products (linear layers, attention) in eval mode, as torch's
    FlopCounterMode counts them; a multiply-accumulate is two of its operations. Nothing is
    computed: the network runs on the meta device, the one given stays as it is.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it imports triton

    parameters = sum(parameter.numel() for parameter in network.parameters())
    # deepcopy finds each tensor's stand-in here, so that no weights are copied.
    stand_ins: dict[int, torch.Tensor] = {}
    for parameter in network.parameters():
        stand_ins[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in network.buffers():
        stand_ins[id(buffer)] = buffer.to("meta")
    shadow = copy.deepcopy(network, stand_ins).eval()
    _drop_batch_norms(shadow)
    example = next(network.parameters(), torch.empty(0))
    images = torch.empty(1, in_channels, image_size, image_size, dtype=example.dtype, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(images)
    return parameters, counter.get_total_flops() // 2


def _drop_batch_norms(network: nn.Module) -> None:
    """Take them out: they hold no products that count, but most of the time on the meta device."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, nn.Identity())
