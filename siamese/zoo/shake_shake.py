"""Shake-Shake: two residual branches, mixed at random in training (arXiv 1705.07485)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from siamese.zoo.network import Network, blocks_per_stage, chain, conv, require_option, stages

_STEM = 16


class _Mix(torch.autograd.Function):
    """``alpha`` weighs the values, ``beta`` the gradients."""

    @staticmethod
    def forward(
        ctx: Any, one: torch.Tensor, two: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(beta)
        return alpha * one + (1 - alpha) * two

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        return beta * gradients[0], (1 - beta) * gradients[0], None, None


def mix(
    one: torch.Tensor, two: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """Mix alpha one + (1 - alpha) two; the gradient g becomes beta g and (1 - beta) g.

    Branches are (N, C, H, W), weights (N, 1, 1, 1) or (1, 1, 1, 1), in [0, 1].
    """
    mixed: torch.Tensor = _Mix.apply(one, two, alpha, beta)
    return mixed


class Shake(nn.Module):
    """Mixes two branches at random in training (torch's global generator), evenly in eval mode.

    The weights of values and of gradients are drawn, anew and for each image, or are a half.
    """

    def __init__(self, forward_shake: bool, backward_shake: bool, per_image: bool):
        super().__init__()
        self.forward_shake, self.backward_shake = forward_shake, backward_shake
        self.per_image = per_image

    def forward(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        """Mixed maps, of the branches' shape (N, C, H, W)."""
        if not self.training:
            return (one + two) / 2
        alpha = self._weight(one, self.forward_shake)
        beta = self._weight(one, self.backward_shake)
        return mix(one, two, alpha, beta)

    def _weight(self, like: torch.Tensor, drawn: bool) -> torch.Tensor:
        shape = (len(like) if self.per_image else 1, 1, 1, 1)
        if not drawn:
            return torch.full(shape, 0.5, device=like.device, dtype=like.dtype)
        # Drawn in fp32: half precision has few numbers between 0 and 1.
        return torch.rand(shape, device=like.device).to(like.dtype)


class ShakeBlock(nn.Module):
    """Two branches of ReLU, 3x3, batch norm, ReLU, 3x3, batch norm beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shake: Shake):
        super().__init__()
        self.branch1 = _branch(in_channels, out_channels, stride)
        self.branch2 = _branch(in_channels, out_channels, stride)
        same = in_channels == out_channels and stride == 1
        self.shortcut = (
            nn.Identity() if same else ShiftedShortcut(in_channels, out_channels, stride)
        )
        self.shake = shake

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        activated = F.relu(x)
        mixed = self.shake(self.branch1(activated), self.branch2(activated))
        out: torch.Tensor = mixed + self.shortcut(x)
        return out


def _branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return chain(
        conv1=conv(in_channels, out_channels, 3, stride),
        bn1=nn.BatchNorm2d(out_channels),
        relu=nn.ReLU(inplace=True),
        conv2=conv(out_channels, out_channels, 3),
        bn2=nn.BatchNorm2d(out_channels),
    )


class ShiftedShortcut(nn.Module):
    """The authors' shortcut where the shape changes: two paths that see different pixels.

    After a ReLU one path takes every ``stride``-th pixel; the other does so after a shift by one
    pixel right and down. Each has a 1x1 convolution to half of the channels; side by side they go
    through a batch norm. (A 1x1 average pooling with a stride, as the authors write it, only picks
    pixels: the convolution's stride does that.)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels // 2, 1, stride)
        self.conv2 = conv(in_channels, out_channels // 2, 1, stride)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        x = F.relu(x)
        shifted = F.pad(x, (1, -1, 1, -1))
        out: torch.Tensor = self.bn(torch.cat([self.conv1(x), self.conv2(shifted)], 1))
        return out


class ShakeShake(Network):
    """Shake-Shake depth 2 x width: a stem of 16 channels, three stages, a last ReLU.

    ``depth`` is 6n + 2, ``width`` the even number of channels of the first stage; they double from
    stage to stage. ``shake_forward`` and ``shake_backward``: mix the branches, and anew their
    gradients, at random (paper: S, else E); ``shake_image``: for each image (I), else for the batch
    (B).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        depth: int = 26,
        width: int = 32,
        shake_forward: bool = True,
        shake_backward: bool = True,
        shake_image: bool = True,
    ):
        require_option(width % 2 == 0, "width", width, "even")
        count = blocks_per_stage(depth, 6, 2)
        outs = [width * 2**stage for stage in range(3)]

        def block(before: int, out: int, stride: int, stage: int, index: int) -> nn.Module:
            shake = Shake(shake_forward, shake_backward, shake_image)
            return ShakeBlock(before, out, stride, shake)

        features = chain(
            stem=chain(conv=conv(in_channels, _STEM, 3), bn=nn.BatchNorm2d(_STEM)),
            **stages(_STEM, [[out] * count for out in outs], block),
            relu=nn.ReLU(inplace=True),
        )
        super().__init__(features, outs[-1], num_classes)
