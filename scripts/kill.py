"""Kill commands with signal 9 at random moments, and show that nothing is lost.

    python scripts/kill.py                          # 20 kills of each
    python scripts/kill.py mend --times 100

- cache: `siamese-eval embed --cache` is killed while the cache is built; the next call, which is
  not killed, must give the embeddings of a call without a cache, and leave nothing half-made.
- study: `siamese-zoo compare` is killed again and again; in the end its figures must be those of
  a study that was never killed.
- enroll: `siamese-use enroll` is killed; each person must be there with all pictures or not at
  all, and the next call must complete the gallery.
- serve: `siamese-use serve` is killed while four clients enrol people; each person must be there
  with all pictures or not at all, and everybody whose enrolment was answered must be there.
- ranks: one of two processes under `torchrun --max-restarts 3 -m siamese.cli.train` is killed, up
  to three times a run; the run goes on by itself, its figures must be those of a run that was
  never killed, and no loader process may be left. Then one is killed under torchrun without
  restarts: the job must end within a minute, with one line of the process that is left.
- mend: `siamese-data mend` of many files on one disk is killed between its renames; `restore` of
  its manifest must give the folder back, file by file, and the next `mend` must find it so.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import http.client
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_serve import ask, form, serving
from tqdm import tqdm

from siamese import Gallery
from siamese.demo.demo_faces import write_demo_faces

STUDY = """
title: Two optimizers
task: face
settings:
  images.size: 32
  split: {validation: 4, test: 0, seed: 0}
  batches: {people: 4, images: 2, workers: 0}
  model: {backbone: test_resnet, embedding_dim: 8, pretrained: false}
  trainer: {epochs: 8, recalibration_batches: 2}
seeds: [0, 1]
figure: auc
report: selected
runs:
  - {label: RAdam, settings: {optimizer.name: radam_schedulefree}}
  - {label: AdamW, settings: {optimizer.name: adamw, schedule.name: cosine}}
"""
MODEL = ("--backbone", "test_resnet", "--model.pretrained", "false", "--size", 32, "--epochs", 1,
         "--model.embedding_dim", 8, "--workers", 0, "--name", "run")  # fmt: skip


def start(place: Path, command: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A command of siamese in a folder; what it prints goes to ``out.txt``."""
    code = f"from siamese.cli.{command} import main; main()"
    with open(place / "out.txt", "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=place,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def whole(place: Path, command: str, *arguments: object) -> float:
    """Run a command to its end; returns its seconds."""
    started = time.monotonic()
    code = start(place, command, *arguments).wait()
    if code:
        told = (place / "out.txt").read_text(errors="replace")[-2000:]
        raise SystemExit(f"{command} {' '.join(map(str, arguments))} ended with {code}:\n{told}")
    return time.monotonic() - started


def killed(process: subprocess.Popen[bytes], sign: Callable[[], bool], wait: float) -> bool:
    """Kill a command some seconds after a sign of its work; False where it ended before."""
    while process.poll() is None and not sign():
        time.sleep(0.002)
    try:
        process.wait(timeout=wait)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_cache(place: Path, times: int, rng: random.Random) -> str:
    """See the module."""
    faces = write_demo_faces(place / "faces", 30, 40, 64, 0)
    whole(place, "train", "--data", faces, *MODEL)
    embed = ("embed", "--data", faces, "--workers", 0)
    whole(place, "eval", *embed, "--out", "plain.npz")
    cache = place / "cache"
    done, seconds = 0, 1.0
    with tqdm(total=times, desc="cache", unit="kill", disable=None) as bar:
        while done < times:
            subprocess.run(["rm", "-rf", cache], check=True)
            for again in range(rng.choice([1, 1, 2])):
                process = start(place, "eval", *embed, "--cache", cache, "--out", f"{again}.npz")
                if killed(process, cache.exists, rng.uniform(0, seconds)):
                    done += 1
                    bar.update()
            whole(place, "eval", *embed, "--cache", cache, "--out", "after.npz")
            _require_equal(place / "plain.npz", place / "after.npz")
            left = [path.name for path in cache.rglob("*") if "tmp" in path.name]
            if left:
                raise SystemExit(f"cache: left behind: {left}")
    return f"cache: {done} kills; every later call gave the embeddings of a call without cache"


def _require_equal(one: Path, other: Path) -> None:
    with np.load(one) as a, np.load(other) as b:
        for key in a.files:
            if not np.array_equal(a[key], b[key]):
                raise SystemExit(f"cache: {key} of {other.name} is not that of {one.name}")


def kill_study(place: Path, times: int, rng: random.Random) -> str:
    """See the module."""
    faces = write_demo_faces(place / "faces", 16, 6, 32, 0)
    (place / "study.yaml").write_text(STUDY)
    study = ("compare", "study.yaml", "--data", faces)
    untouched = place / "untouched"
    untouched.mkdir()
    (untouched / "study.yaml").write_text(STUDY)
    seconds = whole(untouched, "zoo", *study)
    done = 0
    with tqdm(total=times, desc="study", unit="kill", disable=None) as bar:
        while done < times:
            jobs = rng.choice([1, 1, 2])
            process = start(place, "zoo", *study, "--jobs", jobs)
            # Of each call only a part is waited for, or the study would be over after a few.
            if killed(process, (place / "runs").exists, rng.uniform(0, seconds)):
                done += 1
                bar.update()
            elif process.returncode:  # jobs of the killed study are still at work for a moment
                time.sleep(1)
            elif done < times:  # it is over: begin anew
                _require_same_study(untouched, place)
                subprocess.run(["rm", "-rf", place / "runs", place / "checkpoints"], check=True)
    time.sleep(2)  # jobs whose study was killed follow it
    whole(place, "zoo", *study)
    _require_same_study(untouched, place)
    return f"study: {done} kills; the figures are those of a study that was never killed"


def _require_same_study(one: Path, other: Path) -> None:
    tables = []
    for place in (one, other):
        with open(place / "runs/studies/study/results.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        tables.append([{k: v for k, v in row.items() if "second" not in k} for row in rows])
    if tables[0] != tables[1]:
        raise SystemExit("study: the figures differ from those of a study that was never killed")


def kill_enroll(place: Path, times: int, rng: random.Random) -> str:
    """See the module."""
    people, images = 200, 8
    faces = write_demo_faces(place / "faces", people, images, 32, 0)
    whole(place, "train", "--data", faces, *MODEL)
    enroll = ("enroll", faces, "--gallery", "g.db", "--checkpoint", "checkpoints/run/best.pt")
    gallery, seconds, done = place / "g.db", 0.5, 0
    with tqdm(total=times, desc="enroll", unit="kill", disable=None) as bar:
        while done < times:
            for path in place.glob("g.db*"):
                path.unlink()
            stopped = killed(start(place, "use", *enroll), gallery.exists, rng.uniform(0, seconds))
            with Gallery(gallery, create=False) as opened:
                there = opened.people()
            if any(one.pictures != images for one in there):
                raise SystemExit("enroll: a person is there with some of the pictures")
            if not stopped or len(there) == people:
                seconds *= 0.9
                continue
            seconds *= 1.0 if there else 1.2
            done += 1
            bar.update()
            if done % 10 == 0:
                whole(place, "use", *enroll)
                with Gallery(gallery, create=False) as opened:
                    if [one.pictures for one in opened.people()] != [images] * people:
                        raise SystemExit("enroll: the gallery is not complete after another call")
    return f"enroll: {done} kills; nobody was half enrolled, and the next call completes it"


def kill_serve(place: Path, times: int, rng: random.Random) -> str:
    """See the module."""
    images, clients = 4, 4
    faces = write_demo_faces(place / "faces", 8, images, 32, 0)
    whole(place, "train", "--data", faces, *MODEL)
    people = [sorted(folder.glob("*.jpg")) for folder in sorted(faces.glob("demo_*"))]
    forms = [form([("pictures", path.read_bytes()) for path in paths]) for paths in people]
    checkpoint, told, refused = place / "checkpoints/run/best.pt", set[str](), list[str]()

    def enrol(address: tuple[str, int], client: str) -> None:
        connection = http.client.HTTPConnection(*address, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException):  # it was killed
            for number in range(10**6):
                name = f"{client}-{number}"
                status = ask(connection, "PUT", f"/people/{name}", forms[number % len(forms)])
                if status != 200:
                    refused.append(f"serve: an enrolment was refused with {status}")
                    return
                told.add(name)

    with tqdm(total=times, desc="serve", unit="kill", disable=None) as bar:
        for turn in range(times):
            before = len(told)
            with serving(place, checkpoint) as (address, process):
                threads = [
                    threading.Thread(target=enrol, args=(address, f"{turn}-{client}"))
                    for client in range(clients)
                ]
                for thread in threads:
                    thread.start()
                while len(told) < before + clients and not refused:
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.3))
                os.kill(process, signal.SIGKILL)
                for thread in threads:
                    thread.join()
            if refused:
                raise SystemExit(refused[0])
            with Gallery(place / "g.db", create=False) as opened:
                there = {one.name: one.pictures for one in opened.people()}
            if set(there.values()) != {images}:
                raise SystemExit("serve: a person is there with some of the pictures")
            if not told <= there.keys():
                raise SystemExit("serve: an enrolment that was answered is lost")
            bar.update()
    return f"serve: {times} kills, {len(there)} people; nobody was half enrolled, none was lost"


TOGETHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RUN = ("--backbone", "test_resnet", "--model.pretrained", "false", "--size", 32, "--epochs", 12,
       "--model.embedding_dim", 8, "--workers", 1, "--name", "run", "--device", "cpu",
       "--batches.images", 2, "--trainer.recalibration_batches", 2)  # fmt: skip


def start_together(place: Path, faces: Path, *torchrun: object) -> subprocess.Popen[bytes]:
    """Training in two processes; what they print goes to ``out.txt``, which is begun anew."""
    train = ("-m", "siamese.cli.train", faces, *RUN)
    with open(place / "out.txt", "wb") as out:
        return subprocess.Popen(
            [sys.executable, *map(str, (*TOGETHER, *torchrun, *train))],
            cwd=place,
            stdout=out,
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def kill_ranks(place: Path, times: int, rng: random.Random) -> str:
    """See the module."""
    faces = write_demo_faces(place / "faces", 16, 6, 32, 0)
    plain = place / "plain"
    plain.mkdir()
    started = time.monotonic()
    if start_together(plain, faces).wait():
        raise SystemExit(f"ranks: {(plain / 'out.txt').read_text()}")
    seconds = time.monotonic() - started
    done, jobs, slowest = 0, 0, 0.0
    with tqdm(total=times, desc="ranks", unit="kill", disable=None) as bar:
        while done < times:
            jobs += 1
            once = jobs % 3 == 0  # without restarts
            place_of_run = place / f"job-{jobs}"
            place_of_run.mkdir()
            restarts = () if once else ("--max-restarts", 3)
            job = start_together(place_of_run, faces, *restarts)
            killed_here = 0
            for _ in range(1 if once else rng.randint(1, 3)):
                if not _kill_one(job, rng, place_of_run, rng.uniform(0, seconds)):
                    break
                killed_here, killed_at = killed_here + 1, time.monotonic()
            code = job.wait(timeout=300)
            told = (place_of_run / "out.txt").read_text(errors="replace")
            if killed_here and once:
                slowest = max(slowest, time.monotonic() - killed_at)
                _require_one_line(told, code)
            elif code:
                raise SystemExit(f"ranks: ended with {code}:\n{told}")
            else:
                _require_same_figures(plain, place_of_run)
            done += killed_here
            bar.update(killed_here)
    return (
        f"ranks: {done} kills; the figures are those of a run that was never killed, and a job "
        f"without restarts ended within {slowest:.1f} s"
    )


def children(process: int) -> list[int]:
    """The processes that a process, of one thread that starts any, has started (Linux)."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


def _kill_one(job: subprocess.Popen[bytes], rng: random.Random, place: Path, wait: float) -> bool:
    """Kill one of torchrun's processes after some seconds of work; False where it is over."""
    end = time.monotonic() + wait
    begun = place / "runs" / "run" / "settings.yaml"
    while time.monotonic() < end or not begun.exists() or len(children(job.pid)) < 2:
        if job.poll() is not None:
            return False
        time.sleep(0.01)
    chosen = rng.choice(children(job.pid))
    loaders = children(chosen)
    os.kill(chosen, signal.SIGKILL)
    end = time.monotonic() + 20
    while any(Path(f"/proc/{loader}").exists() for loader in loaders):
        if time.monotonic() > end:
            raise SystemExit("ranks: a loader process outlived its own")
        time.sleep(0.1)
    return True


def _require_one_line(told: str, code: int) -> None:
    lines = [line for line in told.splitlines() if line.startswith("siamese-train: ")]
    of_siamese = told.partition("torch/distributed/elastic")[0]
    if not code or len(lines) != 1 or "Traceback" in of_siamese:
        raise SystemExit(f"ranks: ended with {code} and not with one line:\n{told}")


def _require_same_figures(one: Path, other: Path) -> None:
    tables = []
    for place in (one, other):
        with open(place / "runs" / "run" / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        tables.append([{k: v for k, v in row.items() if "second" not in k} for row in rows])
    if tables[0] != tables[1]:
        raise SystemExit(f"ranks: the figures of {other} are not those of {one}")


def kill_mend(place: Path, times: int, rng: random.Random) -> str:
    """See the module."""
    people, files = 80, 50
    faces = place / "faces"
    rows = ["path,to"]
    for person in range(people):
        for number in range(files):
            path = faces / f"人 {person}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.randbytes(300))
            to = rng.choice(["", f"人 {(person + 1) % people}/from-{person}-{number}.jpg"])
            rows.append(f"人 {person}/{number}.jpg,{to}")
    (place / "plan.csv").write_text("\n".join(rows) + "\n")
    before = tree(faces)
    quarantine = place / "faces-quarantine"
    mend = ("mend", faces, "--plan", "plan.csv", "--quarantine", quarantine)

    def manifests() -> set[Path]:
        return set(quarantine.glob("manifest-*.jsonl"))

    def begun() -> bool:
        return manifests() != old

    old = manifests()
    seconds, done, tries = 0.2, 0, 0
    with tqdm(total=times, desc="mend", unit="kill", disable=None) as bar:
        while done < times:
            process = start(place, "data", *mend)
            stopped = killed(process, begun, rng.uniform(0, seconds))
            now = tree(faces)
            moved = len(before.keys() - now.keys())
            everything = sorted([*now.values(), *_quarantined(quarantine)])
            if everything != sorted(before.values()):
                raise SystemExit("mend: a file is lost or there twice")
            for manifest in manifests() - old:
                whole(place, "data", "restore", manifest)
            if tree(faces) != before:
                raise SystemExit("mend: the folder is not as it was")
            left = [path for path in quarantine.iterdir() if path.name.endswith(".tmp")]
            if len(left) > 1:
                raise SystemExit(f"mend: left behind: {left}")
            old = manifests()
            tries += stopped
            if stopped and 0 < moved < people * files:  # between two renames
                done += 1
                bar.update()
            else:
                seconds *= 0.9 if moved else 1.2
    return f"mend: {done} kills between renames ({tries} in all); every restore gave all back"


def _quarantined(quarantine: Path) -> list[str]:
    skipped = (".jsonl", ".tmp", ".siamese-lock")
    return [
        content
        for name, content in tree(quarantine).items()
        if not name.endswith(skipped) and not Path(name).name.startswith(".")
    ]


KILLS: dict[str, Callable[[Path, int, random.Random], str]] = {
    "cache": kill_cache,
    "study": kill_study,
    "enroll": kill_enroll,
    "serve": kill_serve,
    "ranks": kill_ranks,
    "mend": kill_mend,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Kill what the command line names."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names: Any = parser.add_argument("what", nargs="*", help=f"of {', '.join(KILLS)}; all without")
    names.metavar = "WHAT"
    parser.add_argument("--times", type=int, default=20, help="kills of each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    for name in options.what or KILLS:
        if name not in KILLS:
            parser.error(f"{name}: choose of {', '.join(KILLS)}")
        with tempfile.TemporaryDirectory() as folder:
            told = KILLS[name](Path(folder), options.times, random.Random(options.seed))
        print(told, flush=True)


if __name__ == "__main__":
    main()
