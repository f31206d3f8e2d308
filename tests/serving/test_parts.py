"""The parts of a service by themselves: batches, rates, settings, the protocol's patience."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import uvicorn

from siamese.config.using import ServeSettings, check_serve
from siamese.errors import UserError
from siamese.serving import server
from siamese.serving.batching import Batcher
from siamese.serving.limits import RateLimit
from tests.serving.conftest import until


class Network:
    """Stands in for an embedder: says which pictures came together, and can be held up."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, bool]] = []
        self.go = threading.Event()
        self.go.set()

    def embed_prepared(self, images: torch.Tensor, *, flip: bool) -> np.ndarray:
        assert self.go.wait(60)
        self.passes.append((len(images), flip))
        if (images == 255).any():
            raise ValueError("broken")
        return images.float().mean((2, 3)).numpy()


def images(*values: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 4, 4), value, dtype=torch.uint8) for value in values])


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def make_batcher(network: Network) -> Iterator[Callable[..., Batcher]]:
    made = []

    def make(most: int, wait: float = 1.0) -> Batcher:
        made.append(Batcher(network, most, wait))
        return made[-1]

    yield make
    network.go.set()
    for one in made:
        one.close()


def test_what_comes_during_a_pass_goes_together(
    network: Network, make_batcher: Callable[..., Batcher]
) -> None:
    batcher = make_batcher(8)
    network.go.clear()
    first = batcher.embed(images(1, 2), flip=False)
    until(batcher._jobs.empty)  # it is in its pass
    rest = [batcher.embed(images(n), flip=n == 5) for n in range(3, 16)]
    network.go.set()
    assert first.result(60)[:, 0].tolist() == [1, 2]
    for n, answer in enumerate(rest, 3):  # each gets its own
        assert answer.result(60)[:, 0].tolist() == [n]
    assert network.passes == [(2, False), (7, False), (1, True), (5, False)]
    assert (batcher.passes, batcher.pictures) == (4, 15)


def test_a_pass_waits_for_what_is_being_decoded_only(
    network: Network, make_batcher: Callable[..., Batcher]
) -> None:
    batcher = make_batcher(8)
    with batcher.coming():
        one = batcher.embed(images(1), flip=False)
        other = batcher.embed(images(2), flip=False)
    assert [one.result(60)[0, 0], other.result(60)[0, 0]] == [1, 2]
    assert network.passes == [(2, False)]
    batcher = make_batcher(8, wait=0.0)
    with batcher.coming():
        assert batcher.embed(images(1), flip=False).result(60)[0, 0] == 1  # though one is coming


def test_a_failed_pass_is_told_and_the_next_one_works(
    make_batcher: Callable[..., Batcher],
) -> None:
    batcher = make_batcher(8)
    with pytest.raises(ValueError, match="broken"):
        batcher.embed(images(255), flip=False).result(60)
    assert batcher.embed(images(1), flip=False).result(60)[0, 0] == 1


def test_an_asker_who_has_left_takes_no_part(
    network: Network, make_batcher: Callable[..., Batcher]
) -> None:
    batcher = make_batcher(8)
    network.go.clear()
    first = batcher.embed(images(1), flip=False)
    until(batcher._jobs.empty)
    left, other = (batcher.embed(images(n), flip=False) for n in (2, 3))
    assert left.cancel()
    network.go.set()
    assert (first.result(60)[0, 0], other.result(60)[0, 0]) == (1, 3)
    assert network.passes == [(1, False), (1, False)]


def test_rates() -> None:
    time_is = [0.0]
    limit = RateLimit(60, lambda: time_is[0])
    assert [limit.wait("1.2.3.4") for _ in range(13)] == [0] * 12 + [1]
    assert limit.wait("1.2.3.5") == 0  # another address
    time_is[0] = 0.9
    assert limit.wait("1.2.3.4") == 1
    time_is[0] = 1.5
    assert [limit.wait("1.2.3.4") for _ in range(2)] == [0, 1]
    assert RateLimit(1, lambda: 0.0).wait("a") == 0
    slow = RateLimit(1, lambda: 0.0)
    assert [slow.wait("a"), slow.wait("a")] == [0, 60]
    time_is[0] = 1000
    assert [limit.wait("1.2.3.4") for _ in range(13)] == [0] * 12 + [1]  # no more than a fifth
    network = [limit.wait(f"2001:db8::{n:x}") for n in range(1, 14)]
    assert network == [0] * 12 + [1]  # one machine has a whole network
    assert limit.wait("2001:db8:0:1::1") == 0


def test_the_rates_of_few_addresses_are_held() -> None:
    limit = RateLimit(5, lambda: 0.0)
    for n in range(10_100):
        limit.wait(str(n))
    assert len(limit._left) == 10_000
    assert limit.wait("10099") > 0  # the newest are


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "a token is needed"),
        ({"host": "::"}, "a token is needed"),
        ({"host": "192.168.1.5"}, "SIAMESE_TOKEN"),
        ({"host": "faces.example"}, "a token is needed"),
        ({"token": "short"}, "16 or more"),
        ({"token": "with spaces " * 3}, "16 or more"),
        ({"token": "é" * 20}, "16 or more"),
        ({"token": ""}, "16 or more"),
        ({"port": 65536}, "`port` 65536"),
        ({"wait": -1.0}, "`wait`"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        check_serve(ServeSettings(**settings))
    if len(str(settings.get("token") or "")) > 1:
        assert str(settings["token"]) not in str(error.value)


def test_settings_that_work() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        check_serve(ServeSettings(host=host))
    check_serve(ServeSettings(host="0.0.0.0", token="0123456789abcdef"))
    settings = ServeSettings()
    settings.limits.picture = 100.0
    with pytest.raises(UserError, match=r"limits\.request"):
        check_serve(settings)


async def _hello(scope: object, receive: object, send: Callable[..., object]) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"hi"})


def test_nobody_is_waited_for_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.3)
    config = uvicorn.Config(
        _hello, http=server._Patient, ws="none", lifespan="off", log_config=None,
        timeout_keep_alive=1,
    )  # fmt: skip
    running = uvicorn.Server(config)
    request = b"GET / HTTP/1.1\r\nHost: x\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
        thread.start()
        until(lambda: running.started)
        place = listening.getsockname()
        for beginning, answered in (
            (b"", False),
            (request, False),
            (request + b"\r\n", True),
            (request + b"\r\n" + request, True),
        ):
            with socket.create_connection(place, timeout=30) as client:
                client.sendall(beginning)
                assert (b"200 OK" in heard(client, b"")) is answered, beginning
        # A request may come later on a connection that was used.
        with socket.create_connection(place, timeout=30) as client:
            for _ in range(3):
                client.sendall(request + b"\r\n")
                assert b"200 OK" in heard(client, b"hi")
                time.sleep(0.5)
        running.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def heard(client: socket.socket, end: bytes) -> bytes:
    """What comes, until it ends so or the connection is closed."""
    told = b""
    while part := client.recv(1000):
        told += part
        if end and told.endswith(end):
            break
    return told


def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., SimpleNamespace]
) -> None:
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    told = run_here("use", "serve")
    assert told.returncode == 2
    assert "pip install 'siamese[serve]'" in told.stderr
    assert told.stderr.count("\n") == 1
