"""Arrays in files from outside: known by their headers, read one by one, never unpickled."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from siamese.errors import UserError
from siamese.files.places import is_regular, open_regular

_HEADER = 2**14  # bytes; numpy itself refuses headers beyond 10,000
# What one reading may take: a zip file's directory is read at once, whatever it holds.
_AT_ONCE = 4 * 2**20
_DEFLATE = 1032  # no more bytes come out of one (zlib's technical notes)
_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Declared:
    """What an array's header says, checked against the file; an .npy has an empty name.

    The sides of the shape are at least 0; the type is neither structured nor of objects.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class ArrayFile:
    """An open .npz or .npy; ``names`` are those of its arrays. See :func:`open_arrays`."""

    def __init__(self, path: Path, file: IO[bytes]):
        self.path = path
        self._size = os.fstat(file.fileno()).st_size
        self._file = file
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if file.read(len(_MAGIC)) != _MAGIC:
            self._zip = zipfile.ZipFile(file)
            for member in self._zip.infolist():
                if member.filename.endswith(".npy"):
                    name = member.filename.removesuffix(".npy")
                    if name in self._members:
                        raise UserError(f"{path}: holds two arrays of the name {name!r}")
                    self._members[name] = member
        self.names = tuple(self._members) if self._zip is not None else ("",)

    def declared(self, name: str) -> Declared:
        """What an array is; its numbers are not read.

        Raises:
            UserError: damaged; of objects or fields; says other sizes than the file has.
        """
        shape, dtype, length = self._header(name)
        what = f"{self.path}: {name or 'the array'}"
        if dtype.hasobject:
            raise UserError(
                f"{what} is an object array, pickled objects inside, and is not read: whoever "
                f"opens one runs what is in it; save texts as text ({name or 'x'}.astype(str)), "
                'numbers as numbers (.astype("float32"))'
            )
        if dtype.fields is not None or dtype.subdtype is not None or not dtype.itemsize:
            raise UserError(f"{what} has fields or no size ({dtype}); save plain arrays")
        if any(side < 0 for side in shape):
            raise UserError(f"{what} says that its shape is {shape}: the file is damaged")
        needed, there = length + math.prod(shape) * dtype.itemsize, self._declared_size(name)
        if needed != there:
            raise UserError(
                f"{what} needs {needed} bytes by its own header, and {there} are there: the file "
                "is damaged, or holds more than one array"
            )
        return Declared(name, shape, dtype)

    def read(self, name: str) -> npt.NDArray[Any]:
        """An array; call :meth:`declared` first, which knows what it takes.

        Raises:
            UserError: damaged.
        """
        with _readable(self.path), self._opened(name) as stream:
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # also has zipfile look at the checksum
                raise ValueError("too long")
        return array

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Shape, type and length of the header."""
        with _readable(self.path), self._opened(name) as stream:
            head = io.BytesIO(stream.read(_HEADER))  # a header may say that it is 4 GB long
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy's on headers that Python 2 wrote
                if np.lib.format.read_magic(head) == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(head)
                else:  # version 3 is for names of fields, which are refused anyway
                    head.seek(0)
                    if np.lib.format.read_magic(head) != (2, 0):
                        raise ValueError("version")
                    shape, _, dtype = np.lib.format.read_array_header_2_0(head)
            return shape, dtype, head.tell()

    def _declared_size(self, name: str) -> int:
        """Bytes of the .npy, as the directory says; a size that cannot be true is refused."""
        if self._zip is None:
            return self._size
        member = self._members[name]
        most = member.compress_size * (
            1 if member.compress_type == zipfile.ZIP_STORED else _DEFLATE
        )
        if member.compress_size > self._size or member.file_size > most:
            raise UserError(f"{self.path}: its directory says sizes that the file has not")
        return member.file_size

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if self._zip is None:
            self._file.seek(0)
            yield self._file
            return
        member = self._members[name]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("numpy writes no other")  # LZMA takes what memory it is told to
        with self._zip.open(member) as stream:
            yield stream


class _Sparing(io.BufferedReader):
    """A file of which nobody reads much at once (numpy reads an .npy by its descriptor)."""

    def read(self, size: int | None = -1, /) -> bytes:
        asked = _AT_ONCE + 1 if size is None or size < 0 else size
        content = super().read(asked) if asked <= _AT_ONCE + 1 else b""
        if asked > _AT_ONCE + 1 or len(content) > _AT_ONCE:
            raise ValueError("more at once than any array's name or item takes")
        return content


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open an .npz or .npy, whatever its name ends in; no array is read yet.

    Raises:
        UserError: missing, no regular file, no such file of arrays, damaged.
    """
    if not os.path.exists(path):  # unlike Path.exists never an OSError
        raise UserError(f"{path}: no such file")
    if not is_regular(path):
        kind = "a folder" if os.path.isdir(path) else "a device or pipe"
        raise UserError(f"{path}: is {kind}; an .npz or .npy file is needed")
    with _readable(path):
        opened = _Sparing(open_regular(path).detach())
    with opened:
        with _readable(path):
            arrays = ArrayFile(path, opened)
        yield arrays


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever zipfile and numpy stumble over means the same."""
    try:
        yield
    except UserError:
        raise
    except Exception:
        raise UserError(
            f"{path}: is not a readable .npz or .npy of plain arrays (damaged, or another file)"
        ) from None
