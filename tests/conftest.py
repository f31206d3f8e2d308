"""Fixtures that all tests share: small image sets, the real faces, the commands."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.forked import Started, run_siamese

# Before anything asks for it: the hub would try to reach the network for a minute.
os.environ["HF_HUB_OFFLINE"] = "1"

# A shell's background job ignores Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take longest are begun first, lest one of them is left over at the end.
LONGEST = (
    "tests/test_demo_learning.py",
    "tests/test_real_faces.py",
    "tests/cli/test_commands.py",
    "tests/training/test_training.py",
    "tests/tasks/faces/test_several_processes.py",
    "tests/tasks/classes/test_training.py",
)

NAMES = ("Ann", "Bob Lee", "Chloé", "夏子", "dora", "eve")
WIDTH, HEIGHT = 40, 48


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the tests into the order of :data:`LONGEST`, then the others."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))


def draw_person(person: int, image: int, seed: int = 0) -> Image.Image:
    """A crude face: the person decides shapes and colours, the image moves them and adds noise."""
    traits = np.random.default_rng([seed, person])
    skin, hair, shirt = (tuple(traits.integers(40, 230, 3).tolist()) for _ in range(3))
    eyes, mouth, width = traits.integers(4, 9), traits.integers(3, 10), traits.integers(9, 16)
    rng = np.random.default_rng([seed, person, image])
    x, y = np.array([WIDTH // 2, HEIGHT // 2]) + rng.integers(-2, 3, 2)
    picture = Image.new("RGB", (WIDTH, HEIGHT), tuple(rng.integers(60, 200, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, y + 14, WIDTH, HEIGHT), fill=shirt)
    pen.ellipse((x - width - 2, y - 18, x + width + 2, y + 8), fill=hair)
    pen.ellipse((x - width, y - 13, x + width, y + 16), fill=skin)
    for eye in (x - eyes, x + eyes):
        pen.ellipse((eye - 2, y - 4, eye + 2, y), fill="black")
    pen.line((x - mouth, y + 9, x + mouth, y + 9), fill="darkred", width=2)
    noisy = np.asarray(picture) + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def draw_people() -> Callable[..., Path]:
    """Function that draws one folder per name, `images` PNGs of 40 x 48 pixels in each."""

    def draw(root: Path, names: Sequence[str] = NAMES, images: int = 6, seed: int = 0) -> Path:
        for person, name in enumerate(names):
            (root / name).mkdir(parents=True)
            for image in range(images):
                draw_person(person, image, seed).save(root / name / f"{image}.png")
        return root

    return draw


@pytest.fixture
def face_folder(tmp_path: Path, draw_people: Callable[..., Path]) -> Path:
    """A folder of 6 people with 6 pictures each, the same in every test."""
    return draw_people(tmp_path / "faces")


@pytest.fixture(scope="session")
def real_faces() -> Path:
    """The real face folder beside the repository (64 people)."""
    shared = Path(__file__).resolve().parents[2] / "shared"
    if not shared.exists():
        pytest.skip(f"{shared} does not exist: no real faces on this machine")
    return shared / "data" / "faces"


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Function that runs `siamese-train`, `-eval` or `-data`, as its first argument says, in a
    process of its own.
    """

    def run(
        name: str, *arguments: object, cwd: Path | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        started = Started(run_siamese, name, *arguments, cwd=cwd)
        told = started.communicate(timeout)
        return subprocess.CompletedProcess([name, *arguments], started.wait(), *told)

    return run


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_cli` without a process of its own."""

    def run(
        command: str, *arguments: object, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = [f"siamese-{command}", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", given)
        if cwd is not None:
            monkeypatch.chdir(cwd)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            import_module(f"siamese.cli.{command}").main()
        told = capsys.readouterr()
        code = end.value.code
        return subprocess.CompletedProcess(given, int(code or 0), told.out, told.err)

    return run


def write_mnist(root: Path, train: int = 160, test: int = 60, seed: int = 0) -> Path:
    """Grey 28 px images in MNIST's format: each class has stripes of its own."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for name, number in (("train", train), ("t10k", test)):
        labels = np.arange(number) % 10
        images = draw.integers(0, 90, (number, 28, 28))
        rows, columns = np.mgrid[:28, :28]
        for image, label in zip(images, labels, strict=True):
            across = rows if label < 5 else columns
            image += 150 * (across // (label % 5 + 1) % 2)
        head = struct.pack(">IIII", 0x803, number, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.astype("u1").tobytes())
        head = struct.pack(">II", 0x801, number)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype("u1").tobytes())
    return root


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))
