"""Pictures that are decoded once, in memory that all loader processes of a run share."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


class KeptPictures:
    """The first pictures of a list, preprocessed, as many as there is room for.

    Memory is taken as they come. Forked processes share it; one that is not forked begins with
    memory of its own.

    Args:
        pictures: how many there are.
        side: of a preprocessed picture, uint8 (3, side, side).
        room: bytes that may be taken.
        shared: whether several processes read.
    """

    def __init__(self, pictures: int, side: int, room: int, *, shared: bool = False):
        self._made_with = pictures, side, room
        size = 3 * side**2
        number = min(pictures, room // (size + 1))
        try:
            # Not in /dev/shm, which is small in containers.
            memory = mmap.mmap(-1, max(1, number * (size + 1)))
        except OSError:  # not so much memory
            number, memory = 0, mmap.mmap(-1, 1)
        everything = torch.frombuffer(memory, dtype=torch.uint8)
        self._pixels = everything[: number * size].view(number, 3, side, side)
        self._there = everything[number * size : number * (size + 1)]
        # Some processors let others see that a picture is there before they see the picture.
        self._order: AbstractContextManager[object]
        self._order = multiprocessing.Lock() if shared else nullcontext()

    def __reduce__(self) -> tuple[type[KeptPictures], tuple[int, int, int]]:
        return KeptPictures, self._made_with

    def read(self, decode: Callable[[int], torch.Tensor], position: int) -> torch.Tensor:
        """The picture at a position, decoded where it is not there yet."""
        if position >= len(self._there):
            return decode(position)
        with self._order:
            there = bool(self._there[position])
        if there:
            return self._pixels[position].clone()  # a program's own augmentation may write into it
        picture = decode(position)
        self._pixels[position] = picture
        with self._order:
            self._there[position] = 1
        return picture
