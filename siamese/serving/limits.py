"""What one who asks may take: requests a minute, and bytes of what is sent."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from siamese.config.using import ServeLimitSettings
from siamese.serving.pictures import Sent

_ADDRESSES = 10_000  # whose rates are kept; the longest unseen are forgotten
_BURST = 5  # a share of 1 / 5 of a minute's requests may come at once
_MIB = 2**20
_LINGER = 1.0  # seconds in which what a refused request still sends is thrown away


class RateLimit:
    """Requests of each address, by a token bucket (Turner 1986, "leaky bucket as a meter").

    Args:
        per_minute: that are granted in the long run; a fifth of them may come at once.
        clock: seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self._per_second, self._most = per_minute / 60, max(1.0, per_minute / _BURST)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """0 where a request is granted, which counts; else whole seconds to wait, which does not.

        The addresses of one IPv6 network (/64) share a rate: a single machine has all of them.
        """
        key, now = _network(address), self._clock()
        left, seen = self._left.pop(key, (self._most, now))
        left = min(self._most, left + (now - seen) * self._per_second)
        granted = left >= 1
        self._left[key] = (left - granted, now)
        while len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
        return 0 if granted else max(1, math.ceil((1 - left) / self._per_second))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes large files to a disk, where no picture may be."""

    spool_max_size = 2**62


class Uploads:
    """Receives pictures within the limits; they are in memory only, and for as long as needed."""

    def __init__(self, limits: ServeLimitSettings):
        self._limits = limits
        self._held = 0  # bytes of all requests that are being received or decoded

    @asynccontextmanager
    async def receive(
        self, request: Request, **wanted: int
    ) -> AsyncIterator[dict[str, list[Sent]]]:
        """The files of a multipart form by their parts' names; inside, their bytes are held.

        Args:
            wanted: name of each part and how many files of it there may be, at least 1.

        Raises:
            HTTPException: 400, 408, 413, 415, 422 or 503, with one line that says why.
        """
        taken = 0

        async def chunks() -> AsyncGenerator[bytes, None]:
            nonlocal taken
            async for chunk in request.stream():
                taken, self._held = taken + len(chunk), self._held + len(chunk)
                self._require_room(taken)
                yield chunk

        try:
            try:
                self._require_announced(request)
                form = await self._parsed(request, chunks(), sum(wanted.values()))
            except HTTPException as refusal:
                if refusal.status_code == 413:
                    await _drain(request)
                raise
            yield self._checked(form, wanted)
        finally:
            self._held -= taken

    def _require_announced(self, request: Request) -> None:
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise HTTPException(415, "pictures are sent as multipart/form-data")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            self._require_room(int(length), announced=True)

    def _require_room(self, size: int, *, announced: bool = False) -> None:
        if size > self._limits.request * _MIB:
            raise _closing(413, f"a request may have {self._limits.request:g} MiB at most")
        if self._held + size * announced > self._limits.memory * _MIB:
            raise _closing(503, "too many pictures are being sent at once; try again", retry=1)

    async def _parsed(
        self, request: Request, chunks: AsyncGenerator[bytes, None], files: int
    ) -> list[tuple[str, str | UploadFile]]:
        parser = _InMemory(request.headers, chunks, max_files=files, max_fields=0)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return (await parser.parse()).multi_items()
        except TimeoutError:
            seconds = f"{self._limits.seconds:g} seconds"
            raise _closing(408, f"the request did not arrive within {seconds}") from None
        except MultiPartException as error:
            raise _closing(400, f"no form of pictures: {error.message}") from None
        except (KeyError, ValueError, AssertionError):
            # Of the parser, on a form without a boundary and the like.
            raise _closing(400, "no form of pictures: it is malformed") from None

    def _checked(
        self, items: list[tuple[str, str | UploadFile]], wanted: dict[str, int]
    ) -> dict[str, list[Sent]]:
        found: dict[str, list[Sent]] = {name: [] for name in wanted}
        for name, item in items:
            if name not in wanted or isinstance(item, str):
                raise HTTPException(422, f"unknown part; the parts are {', '.join(wanted)}")
            content = item.file.read()
            if len(content) > self._limits.picture * _MIB:
                raise HTTPException(413, f"a picture may have {self._limits.picture:g} MiB at most")
            number = f" {len(found[name]) + 1}" if wanted[name] > 1 else ""
            found[name].append(Sent(f"{name}{number}", item.filename or "", content))
        for name, files in found.items():
            most = wanted[name]
            if not 1 <= len(files) <= most:
                number = "one file" if most == 1 else f"1 to {most} files"
                raise HTTPException(422, f"{name}: {len(files)} files; {number} are needed")
        return found


def _closing(status: int, detail: str, retry: int | None = None) -> HTTPException:
    """A refusal of a request that may not be whole, after which the connection is of no use."""
    headers = {"Connection": "close"}
    if retry is not None:
        headers["Retry-After"] = str(retry)
    return HTTPException(status, detail, headers)


async def _drain(request: Request) -> None:
    """Throw away for a moment what is still sent: whoever sends may read the answer then."""
    with suppress(Exception):
        async with asyncio.timeout(_LINGER):
            while (await request.receive()).get("more_body", False):
                pass
