"""The service under load, while it enrols, and under nonsense: requests a second, p50, p99, errors.

    python scripts/bench_serve.py                                # 1, 4 and 16 clients
    python scripts/bench_serve.py --checkpoint BEST.pt --seconds 20 --rounds 5
    python scripts/bench_serve.py --fuzz 10000                   # broken requests; 0 server errors

A real process of `siamese-use serve` answers; every client sends `POST /verify` with two JPEGs over
a connection that it keeps, and the next one when it has the answer. With "enrolling" another client
enrols people with five pictures each at the same time, without a pause. Rounds go through all rows
in turn; the figures are medians of the rounds, and so are the ratios, which are formed within each.
Without --checkpoint the model has random weights, of the backbone and size that are named.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from siamese.demo.demo_faces import write_demo_faces

CLIENTS = (1, 4, 16)
BOUNDARY = "siamese-bench"
KIND = f"multipart/form-data; boundary={BOUNDARY}"
Address = tuple[str, int]


def random_model(path: Path, backbone: str, size: int) -> Path:
    """A checkpoint with random weights and a threshold."""
    import torch

    from siamese.models.checkpoint import KEYS, write_checkpoint
    from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
    from siamese.verification.calibration import Calibration
    from siamese.verification.decision import Decision

    torch.manual_seed(0)
    model = SiameseEmbedder(backbone, 128, size=size)
    half = (0.5, 0.5, 0.5)
    content: dict[str, Any] = {key: {} for key in KEYS}
    content |= {
        "model": model.state_dict(),
        "embedder": EmbedderSpec(backbone, 128, size, "squash", half, half).as_dict(),
        "train_weights": [],
        "progress": {"epoch": 1},
        "split": {"train": {"folder": "faces", "pictures": 0, "identities": []}},
        "decision": Decision(0.99, 0.01, Calibration(4.0, -2.0)).as_dict(),
    }
    write_checkpoint(path, content)
    return path


@contextmanager
def serving(place: Path, checkpoint: Path, *more: str) -> Iterator[tuple[Address, int]]:
    """The address of a service of its own, and its process's number."""
    code = "from siamese.cli.use import main; main()"
    command = [sys.executable, "-c", code, "serve", "--checkpoint", str(checkpoint), "--port", "0",
               "--gallery", "g.db", "--limits.rate", "100000000", *more]  # fmt: skip
    errors = open(place / "errors.txt", "ab")  # noqa: SIM115 - the process has it
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        greeting = process.stdout.readline()
        if " answers" not in greeting:
            raise SystemExit((place / "errors.txt").read_text())
        host, port = greeting.split(" ")[0].removeprefix("http://").rsplit(":", 1)
        yield (host, int(port)), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        errors.close()


def form(parts: Sequence[tuple[str, bytes]]) -> bytes:
    """Pictures as the parts of a multipart form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"; filename="a.jpg"\r\n\r\n'
    body = b"".join(head.format(name).encode() + content + b"\r\n" for name, content in parts)
    return body + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class Load:
    """What some clients have seen: seconds of each answer, and what was no answer."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.took

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return 1000 * float(np.percentile(self.seconds, share)) if self.seconds else float("nan")


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> int:
    """The status of an answer that was read to its end."""
    headers = {} if body is None else {"Content-Type": KIND}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def load(address: Address, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Let some clients verify for some seconds."""
    result, end = Load(), time.monotonic() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(*address, timeout=60)
        turn = number
        while (started := time.monotonic()) < end:
            try:
                status = ask(connection, "POST", "/verify", bodies[turn % len(bodies)])
            except OSError as error:
                result.errors[type(error).__name__] += 1
                connection.close()
                continue
            if status == 200:
                result.seconds.append(time.monotonic() - started)
            else:
                result.errors[str(status)] += 1
            turn += clients

    started = time.monotonic()
    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.took = time.monotonic() - started
    return result


@contextmanager
def enrolling(address: Address, pictures: Sequence[bytes], prefix: str) -> Iterator[list[int]]:
    """Inside, people are enrolled one after the other; the statuses of the answers."""
    statuses: list[int] = []
    over = threading.Event()

    def enrol() -> None:
        connection = http.client.HTTPConnection(*address, timeout=60)
        for number in range(10**9):
            if over.is_set():
                return
            some = [pictures[(5 * number + n) % len(pictures)] for n in range(5)]
            path = f"/people/{quote(f'{prefix} {number}')}"
            statuses.append(ask(connection, "PUT", path, form([("pictures", p) for p in some])))

    thread = threading.Thread(target=enrol)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def measure(address: Address, pictures: Sequence[bytes], seconds: float, rounds: int) -> None:
    """Print the table and the ratios."""
    rng = random.Random(0)
    bodies = [form([("a", a), ("b", b)]) for a, b in (rng.sample(pictures, 2) for _ in range(200))]
    load(address, bodies, 4, 2)  # caches and threads
    rows: dict[tuple[int, bool], list[Load]] = {}
    enrolled: list[float] = []
    for number in range(rounds):
        for busy in (False, True):
            for clients in CLIENTS:
                if busy:
                    with enrolling(address, pictures, f"{number} {clients}") as statuses:
                        seen = load(address, bodies, clients, seconds)
                    if wrong := [status for status in statuses if status != 200]:
                        seen.errors["enrolment"] += len(wrong)
                    enrolled.append(len(statuses) / seen.took)
                else:
                    seen = load(address, bodies, clients, seconds)
                rows.setdefault((clients, busy), []).append(seen)
    print("| clients | enrolling | requests/s | p50 | p99 | errors |\n|---|---|---|---|---|---|")
    for (clients, busy), seen in rows.items():
        rate, p50, p99 = (
            statistics.median(values)
            for values in (
                [one.rate for one in seen],
                [one.percentile(50) for one in seen],
                [one.percentile(99) for one in seen],
            )
        )
        errors = sum((one.errors for one in seen), Counter())
        print(
            f"| {clients} | {'yes' if busy else 'no'} | {rate:.1f} | {p50:.0f} ms | {p99:.0f} ms | "
            f"{', '.join(f'{n} x {name}' for name, n in errors.items()) or 0} |"
        )
    for busy, words in ((False, ""), (True, " while it enrols")):
        ratios = [
            many.rate / one.rate for one, many in zip(rows[1, busy], rows[16, busy], strict=True)
        ]
        print(f"16 clients against one{words}: {statistics.median(ratios):.2f} x "
              f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})")  # fmt: skip
    worse = [
        busy.percentile(99) / calm.percentile(99)
        for calm, busy in zip(rows[16, False], rows[16, True], strict=True)
    ]
    print(f"p99 of 16 clients while it enrols, against without: {statistics.median(worse):.2f} x; "
          f"{statistics.median(enrolled):.1f} people enrolled a second")  # fmt: skip


NAMES = ("Ann", "夏子", "../../etc/passwd", "<script>", "a/b", "%", "\n", "\u202e", "", "x" * 600,
         "'; DROP TABLE person; --", "\0")  # fmt: skip
TYPES = (
    *[KIND] * 4,
    "",
    "application/json",
    "multipart/form-data",
    "multipart/mixed; boundary=x",
    'multipart/form-data; boundary="',
    f"{KIND}; charset=utf-9",
    "a/b; boundary=" * 9,
)


def nonsense(
    rng: random.Random, pictures: Sequence[bytes]
) -> tuple[str, str, bytes, dict[str, str]]:
    """A request that is broken somewhere, or nowhere: method, path, body, headers."""
    path = rng.choice(["/verify", "/identify", "/people", "/health", "/model", "/", "/docs",
                       "/openapi.json"])  # fmt: skip
    if rng.random() < 0.4:
        path = f"/people/{quote(rng.choice(NAMES), safe=rng.choice(['', '/', '%']))}"
    if rng.random() < 0.1:
        path = "/" + quote(rng.randbytes(rng.randint(0, 40)))
    if rng.random() < 0.4:
        key = rng.choice(["prior", "top", "pictures", "x"])
        value = rng.choice(
            ["0.5", "0", "1", "-1", "nan", "inf", "1e999", "true", "x", "", "9" * 400]
        )
        path += f"?{key}={value}"
    names = rng.choice(
        [["a", "b"], ["picture"], ["pictures"] * rng.randint(1, 4), ["a"], ["x"], []]
    )
    parts = []
    for name in names:
        content = bytearray(rng.choice(pictures))
        for _ in range(rng.choice([0, 0, 1, 5])):
            at = rng.randrange(len(content))
            content[at : at + rng.choice([1, 1, 50])] = rng.randbytes(rng.choice([0, 1, 50]))
            content = content or bytearray(b"x")
        parts.append((name, bytes(content)))
    body = bytearray(form(parts))
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(body))
            body[at : at + rng.choice([0, 1, 20])] = rng.choice(
                [b"\r\n", b"--", b"\0", b"\xff", b'"']
            )
    if rng.random() < 0.05:
        body = bytearray(rng.randbytes(rng.randint(0, 2000)))
    headers = {"Content-Type": rng.choice(TYPES)}
    if rng.random() < 0.1:
        headers[rng.choice(["Origin", "Authorization", "X-A", "Expect", "Cookie", "Range"])] = (
            rng.choice(["null", "http://x", "Bearer x", "100-continue", "bytes=0-1", "é" * 50])
        )
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
    if rng.random() < 0.8:  # mostly one that is there
        method = "POST" if path.startswith(("/verify", "/identify")) else "GET"
        if path.startswith("/people/"):
            method = rng.choice(["PUT", "PUT", "DELETE"])
    return method, path, bytes(body), headers


def fuzz(address: Address, pictures: Sequence[bytes], number: int, seed: int) -> int:
    """Send nonsense; returns the exit code."""
    rng, statuses, found = random.Random(seed), Counter[str](), []
    connection = http.client.HTTPConnection(*address, timeout=60)
    for turn in tqdm(range(number), desc="fuzzing", unit="request", mininterval=10):
        method, path, body, headers = nonsense(rng, pictures)
        told = b""
        try:
            coded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
            connection.request(method, path, body, coded)
            answer = connection.getresponse()
            status, told = str(answer.status), answer.read()
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
            connection.close()
        statuses[status] += 1
        leaks = b"Traceback" in told or b'File "' in told
        if leaks or (status.isdigit() and int(status) >= 500):
            found.append(f"request {turn}: {status} {method} {path[:80]} {told[:200]!r}")
    alive = ask(http.client.HTTPConnection(*address, timeout=60), "GET", "/health", None)
    print("| answer | requests |\n|---|---|")
    for status, count in sorted(statuses.items()):
        print(f"| {status} | {count} |")
    print(f"{number} requests, {len(found)} server errors or traces; afterwards /health: {alive}")
    print(*found[:20], sep="\n", end="\n" if found else "")
    return int(bool(found) or alive != 200)


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a model; without: random weights")
    parser.add_argument("--backbone", default="tf_efficientnetv2_b0")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seconds", type=float, default=10, help="of each row of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fuzz", type=int, metavar="N", help="send N broken requests instead")
    parser.add_argument("--seed", type=int, default=0, help="of --fuzz")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        faces = write_demo_faces(place / "faces", 20, 5, 160, 0)
        pictures = [path.read_bytes() for path in sorted(faces.rglob("*.jpg"))]
        checkpoint = given.checkpoint or random_model(place / "best.pt", given.backbone, given.size)
        with serving(place, checkpoint.resolve()) as (address, _):
            if given.fuzz:
                return fuzz(address, pictures, given.fuzz, given.seed)
            cores = len(os.sched_getaffinity(0))
            print(f"{cores} cores, load {os.getloadavg()[0]:.1f} before the first request")
            measure(address, pictures, given.seconds, given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
