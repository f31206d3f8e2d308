"""Whether a server can be reached, told within seconds; the clients themselves try for minutes."""

from __future__ import annotations

import socket
import threading
from queue import Empty, Queue
from time import monotonic
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

# For a connection, not for a download: a slow link has this long to answer, and then all the time.
PATIENCE = 5.0  # seconds
_PORTS = {"http": 80, "https": 443, "ftp": 21}


def why_unreachable(*urls: str, patience: float = PATIENCE) -> str | None:
    """Why no connection to any of some servers can be made; None where one can.

    Nothing is sent. Where the system's settings name a proxy, that is the server. All of the
    ``urls`` (``https://...``) count as unreachable after ``patience`` seconds.
    """
    servers = list(dict.fromkeys(map(_server_of, urls)))
    answers: Queue[str | None] = Queue()

    def ask(host: str, port: int) -> None:
        try:
            socket.create_connection((host, port), timeout=patience).close()
        except Exception as error:  # of the name's lookup, the network, the address
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            answers.put(f"no connection to {host}: {reason}")
        else:
            answers.put(None)

    # Threads: looking a name up knows no time limit of its own.
    for server in servers:
        threading.Thread(target=ask, args=server, daemon=True).start()
    until, reason = monotonic() + patience, None
    for _ in servers:
        try:
            reason = answers.get(timeout=max(0.0, until - monotonic()))
        except Empty:
            return f"no connection to {servers[0][0]} within {patience:g} s"
        if reason is None:
            return None
    return reason


def _server_of(url: str) -> tuple[str, int]:
    """The host and port that a connection for an address goes to."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
