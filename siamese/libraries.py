"""Large libraries that are imported when they are first used, and without what nobody asks of them.

Half of the seconds before a command does anything are imports. ``timm`` and ``torchvision`` (which
it imports) ask torch's compiler two questions while they are imported, and that loads the compiler:
500 modules and a computer algebra system, a second of time. Here they get the answers when they
use them.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_LOADING = threading.RLock()


class _Library:
    """A module that is imported when the first of its names is asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        with _LOADING:
            if self._name not in sys.modules:
                with without_collection(), _without_compiler():
                    import_module(self._name)
        return getattr(sys.modules[self._name], attribute)


class _Deferred(ModuleType):
    """Stands in for a module while others are imported; any name it lacks is the real one's."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # `inspect` looks through every module for its file
            raise AttributeError(attribute)
        return getattr(_real(self.__name__), attribute)


def _real(name: str) -> ModuleType:
    """The module itself, instead of what stands in for it."""
    for taken in (_COMPILER, f"{_COMPILER}.utils"):
        if isinstance(sys.modules.get(taken), _Deferred):
            del sys.modules[taken]
    return import_module(name)


def _is_compile_supported(device: str) -> Any:
    return _real(f"{_COMPILER}.utils").is_compile_supported(device)


def _disable(function: Any = None, *options: Any, **named: Any) -> Any:
    """``torch.compiler.disable``, which takes effect when the function is first called."""
    if not callable(function) or isinstance(function, type):
        return _real(_COMPILER).disable(function, *options, **named)
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*given: Any, **settings: Any) -> Any:
        if not disabled:
            real: Any = _real(_COMPILER)
            disabled.append(real.disable(function, *options, **named))
        return disabled[0](*given, **settings)

    return call


@contextmanager
def _without_compiler() -> Iterator[None]:
    import torch

    if _COMPILER in sys.modules or not hasattr(torch, "compiler"):
        yield
        return
    compiler, utils = _Deferred(_COMPILER), _Deferred(f"{_COMPILER}.utils")
    compiler.__path__ = []
    compiler.utils, compiler.disable = utils, _disable  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {_COMPILER: compiler, f"{_COMPILER}.utils": utils}
    try:
        yield
    finally:
        for name in (_COMPILER, f"{_COMPILER}.utils"):
            if isinstance(sys.modules.get(name), _Deferred):
                del sys.modules[name]


@contextmanager
def without_collection() -> Iterator[None]:
    """Import without looking for garbage: modules make none, and the search is a sixth of it."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


timm: Any = _Library("timm")
torchvision: Any = _Library("torchvision")
v2: Any = _Library("torchvision.transforms.v2")
functional: Any = _Library("torchvision.transforms.v2.functional")
