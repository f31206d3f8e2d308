"""What a short measurement decides for a planned run: precision, memory layout, compiling."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from siamese.config import ClassTrainerSettings, TrainerSettings
from siamese.errors import telling_lack
from siamese.training.arithmetic import choices, fastest
from siamese.training.compiling import compiles
from siamese.training.probing import Arithmetic, PlannedRun

Trainer = TypeVar("Trainer", TrainerSettings, ClassTrainerSettings)


def tuned(
    trainer: Trainer,
    run: PlannedRun,
    precision: torch.dtype,
    device: torch.device,
    *,
    processes: int,
    new: bool,
    may_round: bool,
    smaller: str,
) -> tuple[Trainer, Arithmetic]:
    """The trainer's settings with what was decided, and the arithmetic.

    The network gets its memory layout. Several processes measure nothing.

    Args:
        precision: that follows from the settings and the device.
        new: the run begins now; one that goes on keeps its precision and its layout.
        may_round: whether bfloat16 may be chosen instead of float32 on a CPU.
        smaller: the settings that need less memory.

    Raises:
        UserError: a compiled network is wanted and cannot be had; a batch does not fit.
    """
    with telling_lack(lambda missing: f"{missing} ({smaller})"):
        arithmetic, *others = choices(precision, trainer.channels_last, device, may_round=may_round)
        run.network.to(memory_format=arithmetic.layout)
        if new and processes == 1:
            arithmetic = fastest(run, arithmetic, others)
            run.network.to(memory_format=arithmetic.layout)
        if arithmetic.precision != precision:
            trainer = replace(trainer, precision="bf16")
        found = compiles(trainer.compile, run, arithmetic, processes=processes, new=new)
    return replace(trainer, channels_last=arithmetic.channels_last, compile=found), arithmetic
