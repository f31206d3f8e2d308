"""Ten thousand mutated picture files through check, scan, embedding, training, convert."""

import contextlib
import csv
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siamese.curation import check
from siamese.data.cache import open_cache
from siamese.data.folder import scan_folder
from siamese.data.labelled_pictures import Draw, face_pictures
from siamese.data.transforms import Preprocess
from siamese.files.shown import table_cell
from siamese.models.checkpoint import KEYS, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from tests.conftest import draw_person

PARTS, PEOPLE, FILES = 12, 17, 50  # 10,200 files
LIMIT = 120  # seconds for a part, which takes about five
SIZE = 16
SCRIPTS = ("Ann", "夏子", "Ольга", "محمد", "ครู", "Chloé", "が", "🙂", "a b", "it's", "-x", "A=1")
ENDINGS = (".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".ico", ".ppm", ".txt", "", ".JPEG")
BAD = {"unreadable", "zero_bytes", "bomb", "failed", "not_picture"}


def written(ending: str, mode: str, **options: object) -> tuple[str, bytes]:
    picture = draw_person(len(mode), 1).resize((12, 15))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 200)
    elif mode == "P":
        picture = picture.quantize(16)
    else:
        picture = picture.convert(mode)
    if options.pop("frames", False):
        options |= {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    file = io.BytesIO()
    picture.save(file, Image.registered_extensions()[ending], **options)
    return ending, file.getvalue()


def originals() -> list[tuple[str, bytes]]:
    """Ending and bytes of a picture of every file type that Pillow writes and reads."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        written(".jpg", "RGB"),
        written(".jpg", "RGB", progressive=True),
        written(".jpg", "L", exif=exif),
        written(".jpeg", "CMYK"),
        written(".png", "RGB"),
        written(".png", "RGBA"),
        written(".png", "1"),
        written(".png", "LA"),
        written(".png", "P", transparency=3),
        written(".png", "I;16"),
        written(".png", "RGB", exif=exif, frames=True),
        written(".webp", "RGB"),
        written(".webp", "RGBA", lossless=True),
        written(".webp", "RGB", frames=True),
        written(".gif", "P"),
        written(".gif", "P", frames=True),
        written(".bmp", "RGB"),
        written(".bmp", "1"),
        written(".bmp", "P"),
        written(".dib", "RGB"),
        written(".tif", "RGB"),
        written(".tif", "RGB", compression="tiff_lzw"),
        written(".tif", "RGB", compression="jpeg"),
        written(".tif", "CMYK", compression="tiff_adobe_deflate"),
        written(".tif", "I;16", exif=exif),
        written(".tif", "F"),
        written(".tif", "L", frames=True),
        written(".tif", "1", compression="group4"),
        written(".ico", "RGBA", sizes=[(12, 12)], bitmap_format="bmp"),
        written(".ico", "RGBA", sizes=[(12, 12)]),
        written(".ppm", "RGB"),
        written(".pgm", "L"),
        written(".pbm", "1"),
        written(".pfm", "F"),
        written(".mpo", "RGB", frames=True),
        written(".pcx", "RGB"),
        written(".tga", "RGBA", compression="tga_rle"),
        written(".sgi", "RGB"),
        written(".dds", "RGBA"),
        written(".im", "RGB"),
        written(".msp", "1"),
        written(".xbm", "1"),
        written(".qoi", "RGB"),
        written(".blp", "P"),
        written(".pdf", "L"),  # which Pillow writes only
    ]


def mutated(rng: np.random.Generator, kept: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """An ending and bytes: one of the pictures, damaged in one of many ways, or left as it is."""
    ending, data = kept[rng.integers(len(kept))]
    other = kept[rng.integers(len(kept))][1]
    bytes_ = np.frombuffer(data, np.uint8).copy()
    at, number = int(rng.integers(len(data))), int(rng.integers(1, 9))
    way = int(rng.integers(10))
    if way == 0:  # bits anywhere
        np.bitwise_xor.at(bytes_, rng.integers(0, len(data), number), 1 << rng.integers(8))
        data = bytes_.tobytes()
    elif way == 1:  # bits in the header
        np.bitwise_xor.at(bytes_, rng.integers(0, min(64, len(data)), number), 1 << rng.integers(8))
        data = bytes_.tobytes()
    elif way == 2:  # bytes anywhere
        bytes_[rng.integers(0, len(data), number)] = rng.integers(0, 256, number)
        data = bytes_.tobytes()
    elif way == 3:
        data = data[:at]
    elif way == 4:  # the end alone
        data = data[: -int(rng.integers(1, 5))]
    elif way == 5:  # another file's header
        data = other[: 4 * number] + data[4 * number :]
    elif way == 6:  # another picture's name
        ending = ENDINGS[rng.integers(len(ENDINGS))]
    elif way == 7:
        data += rng.bytes(number * 10)
    elif way == 8:  # a piece is missing, or is there twice
        data = data[:at] + data[max(0, at + int(rng.integers(-20, 20))) :]
    return ending, data


def write_people(root: Path, part: int) -> None:
    """Folders of one part's files."""
    rng = np.random.default_rng([2024, part])
    kept = originals()
    for person in range(PEOPLE):
        name = SCRIPTS[person % len(SCRIPTS)] + str(person // len(SCRIPTS) or "")
        folder = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(folder)
        for number in range(FILES):
            ending, data = mutated(rng, kept)
            own = f"{SCRIPTS[number % len(SCRIPTS)]} {number}{ending}".encode()
            if number == 0 and sys.platform == "linux":
                own = b"caf\xe9\n0" + ending.encode()
            with open(os.path.join(folder, own), "wb") as file:
                file.write(data)


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and its time of change."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def plainly_readable(data: bytes) -> bool:
    """What Pillow says of it, without any code of ours."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
                return False
            image.convert("RGB")
    except Exception:
        return False
    return True


def command(name: str, *arguments: object) -> tuple[int, str]:
    """Exit code and all output of siamese-NAME, in this process."""
    told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.argv = [f"siamese-{name}", *map(str, arguments)]
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            import_module(f"siamese.cli.{name}").main()
        except SystemExit as end:
            code = int(end.code or 0)
    told.seek(0)
    return code, told.read()


def plain(path: str) -> str:
    """As tables spell it."""
    return path.encode("utf-8", "backslashreplace").decode()


def survives(work: Callable[[Path, int], None], place: Path, part: int) -> None:
    """Do it in a process of its own: a crash or a hang is a failure of this test alone."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(place, part))
    process.start()
    process.join(LIMIT)
    if process.exitcode is None:
        process.kill()
        process.join()
        pytest.fail(f"not done after {LIMIT} seconds")
    assert process.exitcode == 0, "see the captured output of the process"


def send_through(place: Path, part: int) -> None:
    """Every stage, over one part's files, against Pillow's own word."""
    torch.set_num_threads(1)  # the threads of the parent are not here
    root = place / "faces"
    write_people(root, part)
    if part > 0:  # one page with the thumbnails of broken files is enough
        check._write_page = lambda *_: None  # type: ignore[assignment]
    before = tree(root)
    bad = {path for path, (data, _) in before.items() if not plainly_readable(data)}
    assert len(before) == PEOPLE * FILES
    assert 0.3 < len(bad) / len(before) < 0.7

    code, told = command(
        "data", "check", root, "--out", place / "check", "--workers", 1, "--min-side", 1
    )
    assert code == 0, told
    checked = json.loads((place / "check/check.json").read_bytes())
    assert checked["files"] == len(before)
    assert checked["usable_pictures"] == len(before) - len(bad)
    found = {one["kind"]: one["found"] for one in checked["findings"]}
    assert "failed" not in found
    told_bad = [path for kind in BAD & found.keys() for one in found[kind] for path in one["paths"]]
    assert sorted(told_bad) == sorted(bad)

    folder = scan_folder(root, progress=False)
    headless = {item.path for item in folder.left_out}
    assert headless <= bad
    assert {*folder.paths} == before.keys() - headless
    undecodable = bad - headless

    command_line = ("--checkpoint", place / "best.pt", "--data", root, "--workers", 0)
    vectors = []
    for cache in ((), ("--cache", place / "cache"), ("--cache", place / "cache")):
        code, told = command("eval", "embed", *command_line, "--out", place / "e.npz", *cache)
        assert code == 0, told
        assert f"{len(undecodable)} pictures cannot be decoded and are left out" in told
        assert f"{len(headless)} left out" in told
        with np.load(place / "e.npz") as file:
            assert {*file["paths"].tolist()} == before.keys() - bad
            vectors.append(file["embeddings"])
    assert np.isfinite(vectors[0]).all()
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])

    prepare = Preprocess(SIZE, "squash")
    kept = open_cache(place / "cache", [folder], prepare, SIZE, workers=0, progress=False)
    for cache_ in (None, kept):
        drawn = face_pictures(folder, prepare, SIZE, cache_, augment=torch.nn.Identity())
        for at, path in enumerate(folder.paths):
            sample = drawn[Draw(at, at)]
            assert (path in dict(sample.failed)) == (path in undecodable)
            assert sample.image is not None, "another picture of the same person takes its place"
            assert folder.labels[sample.picture] == folder.labels[at]

    code, told = command(
        "data", "convert", root, "--out", place / "small", "--workers", 0, "--size", 16,
        "--format", "png",
    )  # fmt: skip
    assert code == 0, told
    with open(place / "small-left-out.csv", encoding="utf-8", newline="") as table:
        assert {row["path"] for row in csv.DictReader(table)} == {
            table_cell(plain(path)) for path in bad
        }
    made = [path for path in (place / "small").rglob("*.png") if path.is_file()]
    assert len(made) == len(before) - len(bad)
    for path in made:
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"

    assert tree(root) == before, "nothing is lost and nothing is changed"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedder that was never trained."""
    network = SiameseEmbedder("test_resnet", 4)
    spec = EmbedderSpec(
        "test_resnet", 4, SIZE, "squash",
        tuple(network.mean.tolist()), tuple(network.std.tolist()),
    )  # fmt: skip
    content: dict[str, Any] = {key: {} for key in KEYS}
    content |= {"model": network.state_dict(), "embedder": spec.as_dict(), "train_weights": []}
    people: dict[str, Any] = {"folder": "elsewhere", "pictures": 0, "identities": []}
    content["progress"] = {"epoch": 1}
    content["split"] = {"train": people, "validation": people}
    path = tmp_path_factory.mktemp("embedder") / "best.pt"
    write_checkpoint(path, content)
    return path


@pytest.mark.parametrize("part", range(PARTS))
def test_no_file_crashes_hangs_or_gets_lost(part: int, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "best.pt").symlink_to(checkpoint)
    survives(send_through, tmp_path, part)


def test_every_stage_says_that_there_is_nothing_but_broken_files(
    checkpoint: Path, tmp_path: Path
) -> None:
    root = tmp_path / "faces"
    for person in ("Ann", "夏子"):
        (root / person).mkdir(parents=True)
        for number, (ending, data) in enumerate(originals()[:20]):
            (root / person / f"{number}{ending}").write_bytes(data[:10])
    out = tmp_path / "out"
    code, told = command("data", "check", root, "--out", out, "--workers", 0)
    assert code == 0
    assert "unreadable or truncated pictures: 40" in told
    for name, *arguments in (
        ("data", "convert", root, "--out", tmp_path / "small"),
        ("eval", "embed", "--checkpoint", checkpoint, "--data", root, "--out", tmp_path / "e.npz"),
        (
            "train",
            "--data",
            root,
            "--runs",
            out,
            "--checkpoints",
            out,
            "--model.pretrained",
            "false",
        ),
    ):
        code, told = command(name, *arguments)
        assert code == 2, told
        assert "no usable picture" in told
        told = told.removeprefix(told[: told.find("\n") + 1] if name == "train" else "")
        assert len(told.splitlines()) == 1  # beside the learning rate
    assert not (tmp_path / "small").exists()
