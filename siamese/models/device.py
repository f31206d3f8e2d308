"""Where a model runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from siamese.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device a setting names; ``auto`` is a GPU when there is one.

    Raises:
        UserError: unknown device, or one that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(
            f"`device` {name}: this machine has no such device; use auto or cpu"
        ) from None
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Precision of the network's arithmetic; losses and scores stay float32.

    Weights do, too, but for ``pure_bf16`` and ``pure_fp16``.
    ``auto``: bfloat16 on GPUs that have it in hardware, float16 on older ones, float32 on CPUs.

    Raises:
        UserError: float16 on a CPU.
    """
    name = name.removeprefix("pure_")
    if name == "fp32":
        return torch.float32
    if name == "bf16":
        return torch.bfloat16
    if name == "fp16":
        if device.type == "cpu":
            raise UserError("`trainer.precision` fp16: CPUs do not train in fp16; use fp32 or bf16")
        return torch.float16
    if device.type != "cuda":
        return torch.float32
    capable = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if capable else torch.float16


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Mixed precision for one forward pass; float32 switches it off.

    Autocast keeps low-precision copies of the weights until it ends. Enter it anew for each pass:
    averaged-weight optimizers change the weights between passes, and a copy would be stale.
    """
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype=dtype, enabled=dtype != torch.float32
    )
    return context


def scoring_device(name: str) -> torch.device:
    """Where scores are computed and counted: the named device if it is a GPU, else the CPU."""
    device = choose_device(name)
    return device if device.type == "cuda" else torch.device("cpu")
