"""Mutated files of every kind through their readers: no traceback, no hang, no eaten memory.

    python scripts/fuzz.py 10                            # ten minutes, all kinds in turn
    python scripts/fuzz.py 2 --kinds npz,manifest --seed 5 --keep findings

Every file is made by the package itself, broken in some way, and read as the commands read it. The
reader may take it or refuse it with one line (``UserError``). Anything else is a finding: another
error, a process that dies, more than 20 s, more than 2 GB, a file outside the two folders of a move
that is not as it was. What led to a finding is kept; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from siamese.cli import data as data_command
from siamese.cli import train as train_command
from siamese.config import EmbedSettings
from siamese.data.decode import check_header, decode
from siamese.data.pair_lists import read_pairs
from siamese.data.split_lists import read_split
from siamese.demo.demo_faces import write_demo_faces
from siamese.errors import UserError
from siamese.report.embedding_files import load_embeddings, save_embeddings
from siamese.report.embedding_sources import Embeddings, load_model
from siamese.report.verification_report import verify
from siamese.studies.expand import Place, expand
from siamese.studies.study import read_study

SECONDS, BYTES = 20.0, 2 * 2**30
_BATCH = 25  # files per process
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass
class Tally:
    """What became of the files of one kind."""

    taken: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak: int = 0

    @property
    def files(self) -> int:
        """How many were read."""
        return self.taken + self.refused + len(self.findings)


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        name: of the kind.
        seeds: whole files, by the ending of their name.
        read: takes a file as the commands do.
        edit: breaks what the format holds instead of its bytes; None: bytes only.
    """

    name: str
    seeds: Sequence[tuple[str, bytes]]
    read: Callable[[Path], object]
    edit: Callable[[random.Random, bytes], bytes] | None = None


# Mutations

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, -5, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "x" * 70_000, "../../victim/secret", "/../../victim/secret", "../victim",
    "/etc/passwd", "..", "a\0b", "\udcff", "夏子",
    "\x1b]0;t\x07", [], [[]], {}, {"a": 1}, [1, 2], [0.5] * 3, ["a"] * 1000, [[[[[[[[0]]]]]]]],
)  # fmt: skip
TOKENS = (
    b"\xff", b"\0", b"\n", b"\t", b",", b'"', b"..", b"/", b"-1", b"99999999999999999999", b"nan",
    b"!!int abc", b"&a *a", b"{", b"[", b"\xef\xbb\xbf", b"\r", b"1e999", b"'", b": ", b"%", b"\\u",
)  # fmt: skip


def mutated(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes broken in one to four ways."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        # Most of what decides stands at both ends of a file.
        if rng.random() < 0.5:
            edge = min(len(data), 200)
            at = rng.choice([rng.randint(0, edge), len(data) - rng.randint(0, edge)])
        length = rng.choice([1, 1, 2, 4, 16, 300])
        way = rng.randrange(8)
        if way == 0 and data:
            at = min(at, len(data) - 1)
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at : at + length] = rng.randbytes(length)
        elif way == 2:
            del data[at : at + length]
        elif way == 3:
            del data[at:]
        elif way == 4:
            data[at:at] = rng.choice(TOKENS) * rng.choice([1, 1, 3, 2000])
        elif way == 5:
            data[at:at] = data[at : at + length] * rng.choice([1, 2, 50])
        elif way == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at : at + length] = other[start : start + length]
        else:
            number = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1])
            packed = struct.pack(rng.choice("<>") + "Q", number)[: rng.choice([2, 4, 8])]
            data[at : at + len(packed)] = packed
    return bytes(data)


def spoilt(rng: random.Random, content: Any) -> Any:
    """A copy of nested plain values with one to three of them replaced, dropped or doubled."""
    whole = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        place, key = _somewhere(rng, whole)
        if place is None:
            return rng.choice(HOSTILE)
        way = rng.randrange(6)
        if way == 0 and isinstance(place, dict):
            del place[key]
        elif way == 1 and isinstance(place, dict):
            place[rng.choice(["x", "", "path", 7, "é", "a" * 300])] = place.pop(key)
        elif way == 2 and isinstance(place, list):
            place.insert(key, rng.choice(HOSTILE))
        else:
            place[key] = copy.deepcopy(rng.choice(HOSTILE))
    return whole


def _somewhere(rng: random.Random, whole: Any) -> tuple[Any, Any]:
    place, key = None, None
    at = whole
    while isinstance(at, (dict, list)) and at:
        place = at
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        at = place[key]
        if rng.random() < 0.15:
            break
    return place, key


def _edit_checkpoint(rng: random.Random, content: bytes) -> bytes:
    whole = torch.load(io.BytesIO(content), weights_only=True)
    # Not among thousands of weights and states: what describes them.
    part = rng.choice([*whole, "embedder", "embedder", "settings", "split", "decision"])
    whole[part] = spoilt(rng, whole.get(part, {"threshold": 0.5, "calibration": {"slope": 1.0}}))
    file = io.BytesIO()
    torch.save(whole, file)
    return file.getvalue()


def _edit_arrays(rng: random.Random, content: bytes) -> bytes:
    """Headers of arrays with other types and shapes, entries that are packed or doubled."""
    shapes = ["()", "(0,)", "(-1, 4)", "(99999999999, 9)", "(4, 2**70)", "(3)", "[1]", "(2, 3, 4)"]
    kinds = ["|O", "<f2", "<c16", ">i8", "|V8", "<U9999999", "|S1", "<M8[s]", "<f8", "x", "|b1"]
    kinds += ["[('a', '<f4')]", "b'<f4'", "{'a': 1}", "<i8", "[1, 2]", "None"]
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if rng.random() < 0.4:
                end = 10 + struct.unpack("<H", data[8:10])[0]
                head = data[10:end].decode("latin-1")
                if rng.random() < 0.5:
                    shape = head[head.index("(") : head.index(")") + 1]
                    head = head.replace(shape, rng.choice(shapes), 1)
                else:
                    kind = head.split("'")[3]
                    new = rng.choice(kinds)
                    quoted = new if new[0] in "[b{N" else f"'{new}'"
                    head = head.replace(f"'{kind}'", quoted, 1)
                if rng.random() < 0.2:
                    head = head.replace("False", rng.choice(["True", "None", "1", "x"]))
                packed = head.rstrip().encode("latin-1") + b"\n"
                data = data[:8] + struct.pack("<H", len(packed)) + packed + data[end:]
            name = rng.choice([name] * 30 + ["labels.npy", "x.npy", "", "../e.npy", "names.npy"])
            way = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            target.writestr(zipfile.ZipInfo(name), data, way)
            if rng.random() < 0.05:  # a pickle in an array's place
                target.writestr("names.npy", pickle.dumps(["a"]))
    return out.getvalue()


def _edit_yaml(rng: random.Random, content: bytes) -> bytes:
    whole = spoilt(rng, yaml.safe_load(content))
    try:
        return yaml.safe_dump(whole, allow_unicode=True).encode("utf-8", "surrogateescape")
    except (yaml.YAMLError, ValueError):  # 10 ** 400 is too long for a decimal text
        return b"a: 1" + b"0" * 400


def _edit_lines(rng: random.Random, content: bytes) -> bytes:
    lines = [json.loads(line) for line in content.splitlines()]
    at = rng.randrange(len(lines)) if rng.random() < 0.6 else 0
    lines[at] = spoilt(rng, lines[at])
    return b"".join(json.dumps(line, default=str).encode() + b"\n" for line in lines)


# Seeds and readers


def _pictures() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 20, 3), np.uint8))
    ways: list[tuple[str, str, dict[str, Any]]] = [
        (".jpg", "RGB", {}), (".jpg", "L", {"progressive": True}), (".jpg", "CMYK", {}),
        (".png", "RGB", {}), (".png", "P", {}), (".png", "RGBA", {}), (".png", "1", {}),
        (".webp", "RGB", {}), (".webp", "RGBA", {"lossless": True}), (".gif", "P", {}),
        (".bmp", "RGB", {}), (".tif", "RGB", {"compression": "tiff_lzw"}), (".ppm", "RGB", {}),
        (".ico", "RGBA", {}), (".tga", "RGB", {}), (".jp2", "RGB", {}), (".pcx", "RGB", {}),
    ]  # fmt: skip
    made = []
    for ending, mode, options in ways:
        file = io.BytesIO()
        image.convert(mode).save(file, Image.registered_extensions()[ending], **options)
        made.append((ending, file.getvalue()))
    return made


def _read_picture(path: Path) -> None:
    reason = check_header(path)
    decode(path, 32)
    if reason is not None:
        raise UserError(reason)


def _read_embeddings(path: Path) -> None:
    verify(load_embeddings(path), device="cpu")


def _read_model(path: Path) -> object:
    model = load_model(EmbedSettings(checkpoint=str(path), device="cpu"))
    with torch.no_grad():
        size = model.spec.size
        model.network(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    return model.decision


def _read_config(path: Path) -> None:
    train_command.parse(["--config", str(path)])


def _read_study(path: Path) -> None:
    configs = path.parent / "configs"  # a study names others beside it
    if not configs.exists():
        shutil.copytree(REPOSITORY / "configs", configs)
    path = Path(shutil.copy(path, configs / "studies" / "case.yaml"))
    place = Place("runs", "checkpoints", "cpu", None, None)
    expand(read_study(path), place)


class Folders:
    """A face folder with its quarantine, and somebody else's file beside them."""

    def __init__(self, place: Path):
        self.place = place
        self.faces, self.quarantine = place / "faces", place / "faces-quarantine"
        self.victim = place / "victim" / "secret"
        self.reset()

    def reset(self) -> None:
        """Everything as it was."""
        shutil.rmtree(self.place, ignore_errors=True)
        for name in ("Ann/1.jpg", "Ann/2.jpg", "夏子/1.jpg", "夏子/b/2.jpg"):
            file = self.faces / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
        self.victim.parent.mkdir()
        self.victim.write_bytes(b"secret")

    def mend(self, plan: Path) -> None:
        """Carry out a plan."""
        self._command("mend", self.faces, "--plan", plan, "--quarantine", self.quarantine)

    def restore(self, manifest: Path) -> None:
        """Undo what a manifest says, which lies in the quarantine as ever."""
        self._moved()
        own = next(self.quarantine.glob("manifest-*.jsonl"))
        own.write_bytes(manifest.read_bytes())
        self._command("restore", own)

    def _moved(self) -> None:
        plan = self.place / "plan.csv"
        plan.write_bytes(self.plan())
        data_command._command(
            ["mend", str(self.faces), "--plan", str(plan), "--quarantine", str(self.quarantine)]
        )

    def plan(self) -> bytes:
        """A plan that moves a file aside, one to another person, and a folder."""
        return "path,to\nAnn/1.jpg,\n夏子/1.jpg,Ann/3.jpg\n夏子/b,\n".encode()

    def manifest(self) -> bytes:
        """What that plan leaves."""
        with redirect_stdout(io.StringIO()):
            self._moved()
        content = next(self.quarantine.glob("manifest-*.jsonl")).read_bytes()
        self.reset()
        return content

    def _command(self, *arguments: object) -> None:
        known = {"faces", "faces-quarantine", "victim", "plan.csv"}
        try:
            data_command._command([str(argument) for argument in arguments])
        finally:
            new = {path.name for path in self.place.iterdir()} - known
            touched = not self.victim.exists() or self.victim.read_bytes() != b"secret"
            beside = [path.name for path in self.victim.parent.iterdir()] != ["secret"]
            if new or touched or beside:
                raise AssertionError(f"touched what is outside: {new or 'the victim'}")


def kinds(place: Path) -> list[Kind]:
    """Every kind with its seeds, made below ``place``."""
    faces = write_demo_faces(place / "faces", 6, 3, 32, 0)
    trained = place / "checkpoints" / "seed" / "best.pt"
    arguments = [
        *("--data", faces, "--name", "seed", "--epochs", 1, "--workers", 0, "--size", 32),
        *("--backbone", "test_resnet", "--model.pretrained", "false", "--device", "cpu"),
        *("--model.embedding_dim", 8, "--runs", place / "runs", "--trainer.embed_batch", 8),
        *("--checkpoints", place / "checkpoints", "--trainer.recalibration_batches", 0),
    ]
    with redirect_stdout(io.StringIO()):
        train_command._command([str(argument) for argument in arguments])
    rng = np.random.default_rng(0)
    people = Embeddings(
        rng.normal(size=(12, 4)).astype(np.float32),
        np.repeat(np.arange(4), 3),
        ("Ann", "夏子", "Bob", "é"),
        tuple(f"p/{at}.jpg" for at in range(12)),
        "seed",
        (),
        Path("faces"),
    )
    save_embeddings(place / "seed.npz", people)
    files = sorted(path.relative_to(faces).as_posix() for path in faces.glob("*/*.jpg"))
    pairs = [f"{files[at]},{files[at + 1]},{at % 2}" for at in range(0, len(files) - 1)]
    spaced = [line.replace(",", " ") for line in pairs]
    lfw = ["2\t1", "demo_001\t1\t2", "demo_001\t1\tdemo_002\t2", "demo_002\t1\t3",
           "demo_003\t1\tdemo_004\t2"]  # fmt: skip
    lists = place / "lists"
    lists.mkdir()
    for part, own in (("train", files[:9]), ("validation", files[9:])):
        rows = "".join(f"{path},{path.split('/')[0]}\n" for path in own)
        (lists / f"{part}.csv").write_text("path,person\n" + rows)

    def read_lists(path: Path) -> None:
        own = path.parent / "lists"
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(lists, own)
        shutil.copy(path, own / "train.csv")
        read_split(own, faces)

    folders = Folders(place / "moves")

    def on_folders(command: Callable[[Folders, Path], None]) -> Callable[[Path], None]:
        def read(path: Path) -> None:
            folders.reset()  # where the manifest says that they are
            command(folders, path)

        return read

    configs = [(".yaml", path.read_bytes()) for path in sorted(REPOSITORY.glob("configs/face/*"))]
    studies = sorted(REPOSITORY.glob("configs/studies/*.yaml"))
    return [
        Kind("picture", _pictures(), _read_picture),
        Kind("checkpoint", [(".pt", trained.read_bytes())], _read_model, _edit_checkpoint),
        Kind("npz", [(".npz", (place / "seed.npz").read_bytes())], _read_embeddings, _edit_arrays),
        Kind("yaml", configs, _read_config, _edit_yaml),
        Kind("study", [(".yaml", path.read_bytes()) for path in studies], _read_study, _edit_yaml),
        Kind(
            "pairs",
            [
                (".csv", "\n".join(["path_a,path_b,same", *pairs]).encode()),
                (".txt", "\n".join(spaced).encode()),
                (".txt", "\n".join(lfw).encode()),
            ],
            lambda path: read_pairs(path, faces),
        ),
        Kind("split", [(".csv", (lists / "train.csv").read_bytes())], read_lists),
        Kind("plan", [(".csv", folders.plan())], on_folders(Folders.mend)),
        Kind(
            "manifest", [(".jsonl", folders.manifest())], on_folders(Folders.restore), _edit_lines
        ),
    ]


# Running


def case(kind: Kind, seed: int, number: int) -> tuple[str, bytes]:
    """The ending and content of one broken file; equal arguments give equal files."""
    rng = random.Random(f"{kind.name} {seed} {number}")
    ending, content = rng.choice(kind.seeds)
    if kind.edit is not None and rng.random() < 0.6:
        return ending, kind.edit(rng, content)
    return ending, mutated(rng, content, [other for _, other in kind.seeds])


def read_one(kind: Kind, path: Path) -> tuple[str, str]:
    """What becomes of a file: ``taken``, ``refused`` with the line, or ``finding`` with why."""
    try:
        with redirect_stdout(io.StringIO()):
            kind.read(path)
    except UserError as error:
        line = str(error)
        return ("refused", line) if line else ("finding", "refused without a word")
    except BaseException:
        return "finding", traceback.format_exc()
    return "taken", ""


def _child(kind: Kind, seed: int, numbers: Sequence[int], place: Path, pipe: int) -> None:
    """Read some files in a process of its own, telling of each before and after."""
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    out = os.fdopen(pipe, "w", encoding="utf-8", errors="backslashreplace")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        ending, content = case(kind, seed, number)
        path = place / f"case{ending}"
        path.write_bytes(content)
        print(json.dumps([number, "begun", "", 0.0, 0]), file=out, flush=True)
        started = time.monotonic()
        outcome, told = read_one(kind, path)
        seconds = time.monotonic() - started
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if outcome != "finding" and grown > BYTES:
            outcome, told = "finding", f"took {grown / 2**30:.1f} GB"
        if outcome != "finding" and seconds > SECONDS:
            outcome, told = "finding", f"took {seconds:.0f} s"
        print(json.dumps([number, outcome, told, seconds, grown]), file=out, flush=True)
    out.close()


def run_batch(kind: Kind, seed: int, first: int, place: Path, tally: Tally) -> list[int]:
    """Read a batch of files in a child process; returns the numbers of those with findings."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _child(kind, seed, range(first, first + _BATCH), place, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    found: list[int] = []
    number, done = first, True

    def alarm(*_: object) -> None:
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, alarm)
    with os.fdopen(reading, encoding="utf-8") as lines:
        signal.alarm(int(3 * SECONDS))
        for line in lines:
            signal.alarm(int(3 * SECONDS))
            number, outcome, told, seconds, grown = json.loads(line)
            done = outcome != "begun"
            tally.slowest, tally.peak = max(tally.slowest, seconds), max(tally.peak, grown)
            tally.taken += outcome == "taken"
            tally.refused += outcome == "refused"
            if outcome == "finding":
                tally.findings.append(told)
                found.append(number)
    signal.alarm(0)
    status = os.waitpid(child, 0)[1]
    if not done:
        tally.findings.append(f"the process died or hung (status {status})")
        found.append(number)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz for some minutes; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", type=float, nargs="?", default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", help="names, separated by commas; all without")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where findings go")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # a child must not wait for its parent's threads
    with tempfile.TemporaryDirectory() as folder:
        every = kinds(Path(folder))
        if options.kinds:
            named = options.kinds.split(",")
            unknown = set(named) - {kind.name for kind in every}
            if unknown:
                parser.error(f"--kinds {','.join(sorted(unknown))}: no such kind")
            every = [kind for kind in every if kind.name in named]
        tallies = {kind.name: Tally() for kind in every}
        end, first = time.monotonic() + 60 * options.minutes, 0
        while time.monotonic() < end:
            for kind in every:
                tally = tallies[kind.name]
                for number in run_batch(kind, options.seed, first, Path(folder) / "w", tally):
                    ending, content = case(kind, options.seed, number)
                    options.keep.mkdir(parents=True, exist_ok=True)
                    stem = options.keep / f"{kind.name}-{options.seed}-{number}"
                    stem.with_suffix(ending).write_bytes(content)
                    stem.with_suffix(".txt").write_text(tally.findings[-1], errors="replace")
            first += _BATCH
            files = sum(tally.files for tally in tallies.values())
            wrong = sum(len(tally.findings) for tally in tallies.values())
            print(f"\r{files} files, {wrong} findings", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    print("| kind | files | taken | refused | findings | slowest | most memory |")
    print("|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        print(
            f"| {name} | {tally.files} | {tally.taken} | {tally.refused} | {len(tally.findings)} | "
            f"{tally.slowest:.1f} s | {tally.peak / 2**20:.0f} MiB |"
        )
    for name, tally in tallies.items():
        for told, count in Counter(
            text.strip().splitlines()[-1] for text in tally.findings
        ).items():
            print(f"{name}: {count} x {told[:200]}")
    if any(tally.findings for tally in tallies.values()):
        print(f"what led to findings lies in {options.keep}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
