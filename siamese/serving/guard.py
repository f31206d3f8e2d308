"""Who may ask: looked at before anything of a request but its head is read."""

from __future__ import annotations

import hmac
import json
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siamese.config.using import ServeSettings, is_loopback
from siamese.serving.limits import RateLimit

# They hold nothing of a gallery or a model: the page asks for the token itself.
OPEN = frozenset({"/", "/docs", "/openapi.json"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Refuses what comes from another page, too often, or without the token.

    A page elsewhere can make a browser send requests here. Those that it marks with a foreign
    ``Origin`` are refused, and without a token also those that ask for another host than this
    machine (DNS rebinding); with one, such a page lacks it. Every answer forbids to be kept, framed
    or read by other pages.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        self._app, self._rate = app, RateLimit(settings.limits.rate)
        self._token = None if settings.token is None else settings.token.encode()
        self._hosts = {host.lower() for host in settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, detail, more = refusal
        body = json.dumps({"detail": detail}).encode()
        head = {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}
        raw = [(name.lower().encode(), value.encode()) for name, value in head.items()]
        await guarded({"type": "http.response.start", "status": status, "headers": raw})
        await guarded({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        """Status, reason and headers of the answer to what is refused; None: it may pass."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        client = scope.get("client")
        if seconds := self._rate.wait(client[0] if client else ""):
            return 429, "too many requests; try again later", {"Retry-After": str(seconds)}
        if self._token is None and not self._is_own(host):
            return 421, "asked for another host than this machine", {}
        if origin is not None and _netloc(origin) != host.lower():
            return 403, "asked by a page from elsewhere", {}
        try:
            unquote_to_bytes(scope.get("raw_path", b"")).decode()
        except UnicodeDecodeError:
            return 400, "the address is not UTF-8", {}
        if self._token is not None and scope["path"] not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), self._token)
            if not right or kind.lower() != "bearer":
                return 401, "a token is needed", {"WWW-Authenticate": "Bearer"}
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return is_loopback(name) or name in self._hosts


def _netloc(origin: str) -> str | None:
    """The host and port that an ``Origin`` names, in lower case; None for ``null`` and nonsense."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
