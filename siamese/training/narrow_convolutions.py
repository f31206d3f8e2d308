"""Around a fault of the library that convolves on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_NARROW = 16  # channels; oneDNN's blocks have 8 (AVX2) or 16 (AVX-512)


def mend_narrow_convolutions(network: nn.Module, device: torch.device) -> int:
    """Let strided 1 x 1 convolutions of few channels take every other pixel first; how many.

    Their backward pass, channels last, writes beyond its memory on CPUs without AVX-512: runs crash
    or learn wrong weights (oneDNN issue 6035, seen with torch 2.15). Without a stride it does not,
    and the result is the same. Weights and their names stay; a program's own module keeps it.
    """
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512":
        return 0
    narrow = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and set(module.kernel_size) == {1}
        and set(module.stride) != {1}
        and (module.padding == "valid" or set(module.padding) == {0})
        and module.in_channels // module.groups < _NARROW
    ]
    for convolution in narrow:
        down, right = convolution.stride
        convolution.stride = (1, 1)
        convolution.register_forward_pre_hook(_Subsampled(down, right))
    return len(narrow)


class _Subsampled:
    """Before a convolution's forward pass: each ``down``-th row and ``right``-th column."""

    def __init__(self, down: int, right: int):
        self.down, self.right = down, right

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][..., :: self.down, :: self.right], *inputs[1:])
