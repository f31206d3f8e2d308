"""Files that torch wrote, read without trust: declared sizes first, then only what is needed.

``torch.load(weights_only=True)`` runs no code of a file, but it believes what the file says about
sizes: compressed records, calls that copy one large value a thousand times, tensors larger than
their data. All that is looked at here before anything is allocated for it.
"""

from __future__ import annotations

import io
import os
import pickletools
import warnings
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any, cast

import torch

from siamese.config import LimitSettings
from siamese.errors import UserError
from siamese.files.places import is_regular, open_regular

MIB, GIB = 2**20, 2**30
_DEPTH = 24  # of containers in each other; an optimizer's state has five
_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages
# What a file of plain values and weights calls for, and nothing else.
_GLOBALS = {
    "collections OrderedDict",
    "collections Counter",
    "torch Size",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.storage UntypedStorage",
}


class NotReadable(Exception):  # noqa: N818 - a state of a file
    """No file of torch's, damaged, or with something in it that no weights need."""


def read_torch_file(
    path: Path,
    source: str,
    limits: LimitSettings,
    *,
    keys: Collection[str] | None = None,
    inside: Sequence[str] = (),
    legacy: bool = False,
) -> Any:
    """The content of a file of ``torch.save``: plain values and tensors on the CPU.

    Args:
        keys: of a dictionary, the entries that are needed; tensors of the others are not read.
            None: all.
        inside: names of an entry that alone is needed where it is a dictionary; the first one that
            is there counts.
        legacy: also take the format that torch wrote before 1.6, as old weights have it.

    Returns:
        new dictionaries, lists and tuples of str, int, float, bool, None and dense tensors.

    Raises:
        UserError: there is no such file, or it takes more than the limits.
        NotReadable: it is no file of this kind.
    """
    require_regular(path, source)
    budget = int(limits.description * MIB)
    try:
        size, zipped = _check_sizes(path, source, budget, legacy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on foreign pickles is not the user's
            # Mapped, not read: a page is loaded when it is copied below.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        if keys is not None and isinstance(content, dict):
            content = {key: value for key, value in content.items() if key in keys}
        for name in inside:
            if isinstance(content, dict) and isinstance(content.get(name), dict):
                content = {name: content[name]}
        return _Taker(size, source, limits).take(content)
    except (UserError, NotReadable):
        raise
    except RecursionError:
        raise NotReadable from None
    except Exception as error:  # truncated zip, refused pickle, foreign bytes: all mean the same
        raise NotReadable(str(error)) from None


def require_regular(path: Path, source: str) -> None:
    """Refuse what is not there, and what one should not open."""
    if not os.path.exists(path):
        raise UserError(f"{source}: no such file")
    if not is_regular(path):
        raise UserError(f"{source}: is a folder, device or pipe; a file is needed")


def weights_too_large(source: str, limits: LimitSettings) -> UserError:
    """What is said of a file with more weights than the limit."""
    return UserError(
        f"{source}: its weights take more than {limits.weights:g} GiB; if you trust the file, "
        "raise `limits.weights`"
    )


def _check_sizes(path: Path, source: str, budget: int, legacy: bool) -> tuple[int, bool]:
    """The file's size and whether it is a zip; refuses what declares more than there is."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        zipped = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        if zipped:
            _weigh(io.BytesIO(_pickle_of(file, size, source, budget)), source, budget)
        elif legacy:
            for _ in range(_LEGACY_PICKLES):
                _weigh(file, source, budget)
        else:
            raise NotReadable
    return size, zipped


def _pickle_of(file: IO[bytes], size: int, source: str, budget: int) -> bytes:
    """The one pickle of a zip that torch wrote, after a look at the zip's directory."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # torch stores its records as they are; a comment could hide a second directory.
        if archive.comment or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise NotReadable
        if sum(entry.file_size for entry in entries) > size:
            raise NotReadable
        names = [entry.filename for entry in entries]
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or len(set(names)) < len(names):
            raise NotReadable
        if archive.getinfo(pickles[0]).file_size > budget:
            raise _too_much(source, budget)
        return archive.read(pickles[0])


def _too_much(source: str, budget: int) -> UserError:
    return UserError(
        f"{source}: what it holds beside the weights takes more than {budget / MIB:g} MiB; if you "
        "trust the file, raise `limits.description`"
    )


def _weigh(file: IO[bytes], source: str, budget: int) -> None:
    """Refuse a pickle that makes more than some bytes, without making any of it.

    The pickle's operations are followed on a stack of weights. A value counts as often as it is
    used, so neither references to references nor calls that copy what they get come through.
    """
    stack: list[list[int]] = []
    marks: list[int] = []
    memo: dict[int, list[int]] = {}
    made = 0

    def pop_mark() -> int:
        start = marks.pop()
        total = sum(weight[0] for weight in stack[start:])
        del stack[start:]
        return total

    for operation, given, _ in pickletools.genops(file):
        name, argument = operation.name, cast(Any, given)
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("APPEND", "SETITEM"):
            number = 1 if name == "APPEND" else 2
            added = sum(weight[0] for weight in stack[-number:])
            del stack[-number:]
            stack[-1][0] += added + 16
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            number = len(stack) - marks[-1]
            stack[-1 - number][0] += pop_mark() + 16 * number
            made += 16 * number
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            if name != "TUPLE":
                marks.append(len(stack) - int(name[-1]))
            stack.append([64 + pop_mark()])
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, _callable = stack.pop(), stack.pop()
            stack.append([64 + arguments[0]])
            made += arguments[0]
        elif name == "BUILD":
            state = stack.pop()
            stack[-1][0] += state[0]
        elif name == "BINPERSID":
            stack[-1] = [64]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name == "GLOBAL":
            if not _is_allowed(argument):
                raise NotReadable
            stack.append([64])
        elif name in ("PROTO", "FRAME", "STOP"):
            pass
        elif not operation.stack_before and len(operation.stack_after) == 1:  # a plain value
            stack.append([64 + (len(argument) if isinstance(argument, str | bytes) else 0)])
        else:
            raise NotReadable
        made += 64
        if made > budget or (stack and stack[-1][0] > budget):
            raise _too_much(source, budget)


def _is_allowed(name: str) -> bool:
    module, _, thing = name.partition(" ")
    storage = module in ("torch", "torch.cuda") and thing.endswith("Storage")
    return (
        storage
        or name in _GLOBALS
        or isinstance(getattr(torch, thing, None) if module == "torch" else None, torch.dtype)
    )


class _Taker:
    """Copies what is needed out of a mapped file, and refuses what is neither plain nor weights."""

    def __init__(self, size: int, source: str, limits: LimitSettings):
        self._left, self._budget = 2 * size, int(limits.weights * GIB)
        self._source, self._limits = source, limits
        self._tensors: dict[tuple[Any, ...], torch.Tensor] = {}

    def take(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEPTH:
            raise NotReadable
        kind = type(value)
        if kind in (str, bool, type(None), float):
            return value
        if kind is int:
            if not -(2**63) <= value < 2**64:
                raise NotReadable
            return value
        if isinstance(value, dict):
            if not all(type(key) in (str, int) for key in value):
                raise NotReadable
            return {key: self.take(item, depth + 1) for key, item in dict.items(value)}
        if kind in (list, tuple, torch.Size):
            items = [self.take(item, depth + 1) for item in value]
            return items if kind is list else tuple(items)
        if kind in (torch.Tensor, torch.nn.Parameter):
            return self._copied(value.detach())
        raise NotReadable

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_nested:
            raise NotReadable
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():  # one number that claims to be a million
            raise NotReadable
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if place not in self._tensors or not size:
            self._left, self._budget = self._left - size, self._budget - size
            if self._left < 0:  # many tensors over the same data
                raise NotReadable
            if self._budget < 0:
                raise weights_too_large(self._source, self._limits)
            self._tensors[place] = tensor.clone()
        return self._tensors[place]
