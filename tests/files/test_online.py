"""A server that is not there is told within seconds; one that answers slowly is waited for."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from siamese.files.online import why_unreachable


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_server_is_reachable_or_the_reason_is_told(server: str, closed: str) -> None:
    assert why_unreachable(f"{server}/any/path") is None
    assert why_unreachable(closed) == "no connection to 127.0.0.1: Connection refused"
    assert why_unreachable(closed, server) is None


def test_an_unknown_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told = why_unreachable("https://nowhere.invalid/file")
    assert told == "no connection to nowhere.invalid: Name or service not known"


@pytest.mark.parametrize("silent", ["getaddrinfo", "create_connection"])
def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, silent, lambda *_, **__: over.wait(30))
    began = time.monotonic()
    told = why_unreachable("https://silent.invalid", patience=0.2)
    assert time.monotonic() - began < 5
    assert told == "no connection to silent.invalid within 0.2 s"
    over.set()


def test_a_slow_answer_within_the_patience_counts(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    connect = socket.create_connection

    def slow(*arguments: Any, **options: Any) -> socket.socket:
        time.sleep(0.3)
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", slow)
    assert why_unreachable(server, patience=5) is None


def test_the_proxy_of_the_system_is_asked(
    monkeypatch: pytest.MonkeyPatch, server: str, closed: str
) -> None:
    monkeypatch.setenv("https_proxy", server)
    assert why_unreachable("https://nowhere.invalid") is None
    monkeypatch.setenv("https_proxy", closed)
    assert "127.0.0.1" in str(why_unreachable("https://nowhere.invalid"))
