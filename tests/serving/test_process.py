"""A real process that serves: killed, stopped, refused a port, and asked over a socket."""

import io
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import httpx
from PIL import Image

from siamese import Gallery
from tests.conftest import draw_person
from tests.runs import write_random_model
from tests.serving.conftest import running

PICTURES = 3
Run = Callable[..., CompletedProcess[str]]


def person(number: int) -> list[tuple[str, tuple[str, bytes]]]:
    files = []
    for image in range(PICTURES):
        file = io.BytesIO()
        draw_person(number, image).save(file, "PNG")
        files.append(("pictures", (f"{image}.png", file.getvalue())))
    return files


def test_killed_while_it_enrols_nobody_is_half_there(checkpoint: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    told: set[str] = set()
    for attempt in range(2):
        with running(tmp_path, checkpoint, "--gallery", "g.db") as (address, process):

            def enrol(worker: int, address: str = address, attempt: int = attempt) -> None:
                for number in range(10_000):
                    name = f"{attempt} {worker} {number}"
                    try:
                        answer = httpx.put(f"{address}/people/{name}", files=person(number))
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 200
                    told.add(name)

            workers = [threading.Thread(target=enrol, args=(n,)) for n in range(3)]
            before = len(told)
            for worker in workers:
                worker.start()
            while len(told) < before + 5:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            for worker in workers:
                worker.join()
        with Gallery(tmp_path / "g.db", create=False) as gallery:
            there = {one.name: one.pictures for one in gallery.people()}
        assert set(there.values()) == {PICTURES}
        assert told <= there.keys()  # what was answered is on the disk
    with running(tmp_path, checkpoint, "--gallery", "g.db") as (address, _):  # and it goes on
        assert httpx.get(f"{address}/health").json()["people"] == len(there)


def test_over_a_socket(checkpoint: Path, tmp_path: Path) -> None:
    token = "0123456789abcdef-secret"
    with running(tmp_path, checkpoint, "--host", "0.0.0.0", SIAMESE_TOKEN=token) as (
        address,
        process,
    ):
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}/people").status_code == 401
        client = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"})
        for name, coded in (("%2F", "%252F"), ("%", "%25"), ("a/b", "a%2Fb"), ("夏子", "夏子")):
            told = client.put(f"/people/{coded}", files=person(0))
            assert told.json()["name"] == name
            assert client.delete(f"/people/{coded}").json()["removed"] == PICTURES
        # A length that is too large is refused before it comes, and so is one without a length.
        host, port = address.removeprefix("http://").split(":")
        for length in ("Content-Length: 99999999999", "Transfer-Encoding: chunked"):
            with socket.create_connection((host, int(port)), timeout=60) as raw:
                raw.sendall(
                    f"POST /verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                    f"Content-Type: multipart/form-data; boundary=x\r\n{length}\r\n\r\n".encode()
                )
                if "chunked" in length:
                    part = b"--x\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\n"
                    raw.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                    block = b"100000\r\n" + bytes(0x100000) + b"\r\n"
                    try:
                        for _ in range(60):
                            raw.sendall(block)
                    except OSError:
                        pass  # it has heard enough
                assert b" 413 " in raw.recv(100)
        assert client.get("/health").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout.read() == "ended\n"


def test_what_cannot_be_served_is_one_line(run_here: Run, checkpoint: Path, tmp_path: Path) -> None:
    write_random_model(tmp_path / "other.pt", seed=1)
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    gallery = ("--gallery", "g.db")
    enrolled = run_here("use", "enroll", "--name", "Ann", picture, *gallery, "--checkpoint",
                        checkpoint, cwd=tmp_path)  # fmt: skip
    assert enrolled.returncode == 0, enrolled.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, words in (
            (("--port", port), f"--port {port}: cannot be bound"),
            (("--checkpoint", "other.pt"), "holds embeddings of another model"),
            (("--checkpoint", "none.pt"), "none.pt"),
            (("--host", "0.0.0.0"), "--host 0.0.0.0: others can reach it"),
            (("--host", "203.0.113.1", "--token", "0123456789abcdef"), "cannot be bound"),
            (("--gallery", "a.png"), "a.png"),
        ):
            told = run_here("use", "serve", *gallery, *arguments, cwd=tmp_path)
            assert told.returncode == 2, told.stdout
            assert words in told.stderr
            assert told.stderr.count("\n") == 1
