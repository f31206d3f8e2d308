"""The decoded cache: the same pixels, decoded once, whatever happens to files and pictures."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from siamese.config import (
    AugmentSettings,
    BatchSettings,
    EmbedSettings,
    ImageSettings,
    ModelSettings,
    OptimizerSettings,
    SplitSettings,
    TrainerSettings,
    TrainSettings,
)
from siamese.data import cache as cache_module
from siamese.data import cache_files
from siamese.data import labelled_pictures as pictures_module
from siamese.data.batches import PKBatches
from siamese.data.cache import PictureCache, open_cache
from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.labelled_pictures import face_pictures
from siamese.data.loaders import Batch, evaluation_loader, training_loader
from siamese.data.split import make_split
from siamese.data.transforms import Preprocess, augmentation
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint
from siamese.models.embedder import EmbedderSpec
from siamese.report.embedding_sources import embed_people
from siamese.studies.expand import settings_hash
from siamese.tasks.faces.face_log import FaceLog
from siamese.tasks.faces.face_runs import _open_cache, resume_training, train_faces
from siamese.training.monitoring import RunLog
from tests.file_names import raw_names
from tests.runs import same

SIZE = 16
ROW = 3 * SIZE * SIZE
PREPARE = Preprocess(SIZE, "squash")
Run = Callable[..., CompletedProcess[str]]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the caches go; it does not exist."""
    return tmp_path / "the caches" / "夏"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that were decoded in this process, as they are."""
    paths: list[str] = []

    def counting(path: Path, size: int | None = None) -> Image.Image:
        paths.append("/".join(path.parts[-2:]))
        return decode(path, size)

    for module in (pictures_module, cache_module):
        monkeypatch.setattr(module, "decode", counting)
    return paths


def scan(root: Path) -> FaceFolder:
    return scan_folder(root, progress=False)


def opened(
    place: Path, *folders: FaceFolder, workers: int = 0, prepare: Preprocess = PREPARE
) -> PictureCache:
    return open_cache(place, folders, prepare, SIZE, workers=workers, progress=False)


def assert_right(cache: PictureCache, folder: FaceFolder) -> None:
    """Each picture is what decoding gives, down to how it lies in memory."""
    for path in folder.paths:
        expected = cache.preprocess(decode(folder.root / path, cache.size))
        found = cache.read(folder.root, path)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
        assert found.dtype == torch.uint8


def rewrite(path: Path, seed: int = 0) -> None:
    """Other pixels under the same name."""
    noise = np.random.default_rng([seed, 9]).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def break_picture(path: Path) -> None:
    """Leave the header whole, so that only decoding finds the damage."""
    rewrite(path)
    path.write_bytes(path.read_bytes()[:3000])


def one(place: Path) -> Path:
    (found,) = place.glob("*.sqlite")
    return found


def rows_of(file: Path) -> int:
    """Pictures that a cache's file knows; 0 where it is just being made."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM picture").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


def rows_in(place: Path) -> int:
    return sum(map(rows_of, place.glob("*.sqlite")))


# The same pixels, decoded once


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "prepare", [PREPARE, Preprocess(SIZE, "crop"), Preprocess(SIZE, "crop", 0.6)]
)
def test_rows_are_what_decoding_gives(face_folder, place, workers, prepare):
    folder = scan(face_folder)
    assert_right(opened(place, folder, workers=workers, prepare=prepare), folder)
    assert rows_of(one(place)) == 36


def test_a_second_opening_decodes_nothing(face_folder, place, decoded):
    folder = scan(face_folder)
    opened(place, folder)
    assert sorted(decoded) == sorted(folder.paths)
    decoded.clear()
    cache = opened(place, folder)
    pictures = [cache.read(folder.root, path) for path in folder.paths]
    assert decoded == []
    assert all(
        torch.equal(picture, PREPARE(decode(face_folder / path)))
        for picture, path in zip(pictures, folder.paths, strict=True)
    )


def test_parts_of_one_folder_share_a_file(face_folder, place, decoded):
    folder = scan(face_folder)
    first, second = folder.only(["Ann", "dora"]), folder.only(["dora", "夏子"])
    opened(place, first)
    assert len(decoded) == 12
    cache = opened(place, second)
    assert len(decoded) == 18
    opened(place, folder, first)  # a picture that is in both is there once
    assert len(decoded) == 36
    assert rows_of(one(place)) == 36
    assert_right(cache, second)


def test_what_the_cache_was_not_opened_for_is_decoded(face_folder, place, decoded):
    folder = scan(face_folder)
    cache = opened(place, folder.only(["Ann"]))
    decoded.clear()
    assert_right(cache, folder)
    assert len(decoded) == 30


def test_what_changes_the_pixels_has_a_file_of_its_own(face_folder, draw_people, tmp_path, place):
    other = scan(draw_people(tmp_path / "other" / "faces", ["Ann"], seed=3))
    folder = scan(face_folder)
    wanted = [
        (Preprocess(SIZE, "squash"), SIZE),
        (Preprocess(SIZE, "crop"), SIZE),
        (Preprocess(SIZE, "crop", 0.5), None),
        (Preprocess(SIZE, "crop", 20), None),
        (Preprocess(SIZE, "squash"), None),
        (Preprocess(SIZE + 4, "squash"), SIZE + 4),
    ]
    for prepare, size in wanted:
        for root in (folder, other):
            assert_right(open_cache(place, [root], prepare, size, workers=0, progress=False), root)
    assert len(list(place.glob("*.sqlite"))) == 12


def test_roots_in_one_opening(face_folder, draw_people, tmp_path, place):
    other = scan(draw_people(tmp_path / "other", ["Ann"], seed=3))
    folder = scan(face_folder)
    cache = opened(place, folder, other)
    assert_right(cache, folder)
    assert_right(cache, other)


def test_the_size_is_told_before_it_is_built(face_folder, place, capsys, monkeypatch):
    folder = scan(face_folder)
    part = folder.only(["Ann"])
    monkeypatch.setattr(cache_module, "evaluation_loader", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opened(place, part)
    told = capsys.readouterr().err
    assert f"cache: 6 pictures x {ROW} bytes = 0.0 MB in {place}/faces-{SIZE}px-" in told
    monkeypatch.undo()
    opened(place, part)
    capsys.readouterr()
    opened(place, folder)
    assert f"36 pictures x {ROW} bytes" in (told := capsys.readouterr().err)
    assert "6 of them are there" in told
    opened(place, folder)
    assert capsys.readouterr().err == ""


def test_it_travels_to_other_processes(face_folder, place, decoded):
    folder = scan(face_folder)
    cache = opened(place, folder)
    cache.read(folder.root, folder.paths[0])
    sent = pickle.dumps(cache)
    assert len(sent) < 36 * ROW / 2  # without the pixels
    decoded.clear()
    assert_right(pickle.loads(sent), folder)
    assert decoded == []


# Batches and runs


def all_batches(
    folder: FaceFolder, cache: PictureCache | None, workers: int
) -> tuple[list[Batch], list[Batch]]:
    augment = augmentation(AugmentSettings(color_jitter=0.4, rotation=10), SIZE)
    pictures = face_pictures(folder, PREPARE, SIZE, cache, augment=augment)
    drawn = PKBatches(folder.labels, 3, 2, seed=7)
    training = training_loader(pictures, drawn, workers=workers, pin_memory=False)
    judged = evaluation_loader(folder, PREPARE, SIZE, batch_size=5, workers=workers, cache=cache)
    return list(training), list(judged)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without(face_folder, place, workers):
    break_picture(face_folder / "Ann" / "1.png")
    for number in range(6):
        break_picture(face_folder / "eve" / f"{number}.png")
    folder = scan(face_folder)
    cache = opened(place, folder)
    for plain, cached in zip(
        all_batches(folder, None, 0), all_batches(folder, cache, workers), strict=True
    ):
        assert len(plain) == len(cached)
        assert any(batch.failed for batch in plain)
        for a, b in zip(plain, cached, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.indices, b.indices)
            assert a.failed == b.failed


@pytest.fixture
def training(face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainSettings:
    """A run of two epochs, without its plots and thumbnails."""
    monkeypatch.setattr(FaceLog, "epoch", RunLog.epoch)
    monkeypatch.setattr(FaceLog, "_projector", lambda *_: None)
    break_picture(face_folder / "Ann" / "1.png")
    return TrainSettings(
        data=str(face_folder),
        name="run",
        runs=str(tmp_path / "runs"),
        checkpoints=str(tmp_path / "checkpoints"),
        device="cpu",
        images=ImageSettings(size=32),
        augment=AugmentSettings(color_jitter=0.3),
        split=SplitSettings(validation=2),
        batches=BatchSettings(people=3, images=3, workers=0),
        model=ModelSettings("test_resnet", 8, False),
        optimizer=OptimizerSettings(lr=1e-2),
        trainer=TrainerSettings(epochs=2, recalibration_batches=2),
    )


def elsewhere(run: TrainSettings, name: str, cache: Path | None, workers: int) -> TrainSettings:
    return replace(
        run,
        runs=f"{run.runs}-{name}",
        checkpoints=f"{run.checkpoints}-{name}",
        cache=None if cache is None else str(cache),
        batches=replace(run.batches, workers=workers),
    )


def result(run: TrainSettings, ending: str = "last.pt") -> dict[str, Any]:
    content = read_checkpoint(Path(run.checkpoints) / "run" / ending)
    del content["settings"]["cache"], content["settings"]["batches"]["workers"]
    return content


def test_a_run_is_the_same_with_and_without(training, place, monkeypatch, capsys):
    train_faces(training)
    expected = capsys.readouterr().out
    assert "left out from now on" in expected
    for workers in (0, 2):
        run = elsewhere(training, f"built-{workers}", place / str(workers), workers)
        train_faces(run)
        same(result(training), result(run))
        same(result(training, "best.pt"), result(run, "best.pt"))
        told = capsys.readouterr().out
        lines = [[x for x in text.splitlines() if "left out" in x] for text in (expected, told)]
        assert lines[0] == lines[1]

    def refuse(path: Path, size: int | None = None) -> Image.Image:
        raise AssertionError(f"{path} is decoded")

    for module in (pictures_module, cache_module):
        monkeypatch.setattr(module, "decode", refuse)
    run = elsewhere(training, "read", place / "2", 0)
    train_faces(run)
    same(result(training), result(run))


def test_a_run_goes_on_with_another_cache_or_none(training, tmp_path, place):
    train_faces(training)
    run = elsewhere(training, "stopped", place, 0)
    train_faces(replace(run, trainer=replace(run.trainer, epochs=1)))
    target = str(Path(run.checkpoints) / "run")

    def parse(saved: dict[str, Any]) -> TrainSettings:
        assert saved["cache"] is not None
        return replace(run, cache=str(tmp_path / "moved"))

    resume_training(target, run.checkpoints, parse)
    same(result(training)["model"], result(run)["model"])
    assert rows_in(tmp_path / "moved") > 0


def test_a_run_keeps_the_parts_that_it_reads(face_folder, draw_people, tmp_path, place):
    own = scan(draw_people(tmp_path / "own", ["x", "y"], seed=4))
    split = make_split(
        scan(face_folder), validation=0, test=2, seed=0, validation_folder=own, test_folder=None
    )
    spec = EmbedderSpec("test_resnet", 8, SIZE, "crop", (0, 0, 0), (1, 1, 1))
    run = TrainSettings(cache=str(place), batches=BatchSettings(workers=0))
    run.images.size, run.images.fit = SIZE, "crop"

    def opened_for(run: TrainSettings) -> list[int]:
        cache = _open_cache(run, split, spec)
        assert cache is not None
        for part in split.parts().values():
            assert_right(cache, part)
        return sorted(map(rows_of, place.glob("*.sqlite")))

    assert opened_for(run) == [12, 24]  # of its own folder, and the training people's
    run.trainer.test_curve = True
    assert opened_for(run) == [12, 36]
    centre = replace(spec, crop=0.7)
    assert _open_cache(run, split, centre) is not None
    assert sorted(map(rows_of, place.glob("*.sqlite"))) == [12, 12, 36, 36]
    run.cache = None
    assert _open_cache(run, split, spec) is None


@pytest.mark.parametrize("crop", [None, 0.7, "trained", "whole"])
def test_embeddings_are_the_same_with_and_without(training, place, decoded, crop):
    run = replace(training, trainer=replace(training.trainer, epochs=1))
    if crop in ("trained", "whole"):
        run = replace(run, images=replace(run.images, crop=0.7))
        crop = None if crop == "trained" else crop
    checkpoint = train_faces(run)
    plain = EmbedSettings(
        checkpoint=str(checkpoint), data=training.data, crop=crop, device="cpu", workers=0
    )
    expected = embed_people(plain)
    for workers in (0, 2, 0):
        decoded.clear()
        found = embed_people(replace(plain, cache=str(place), workers=workers))
        assert np.array_equal(found.embeddings, expected.embeddings)
        assert found.paths == expected.paths
        assert found.notes == expected.notes
    assert decoded == []
    if crop is None:  # training and embedding share a file
        again = elsewhere(run, "again", place, 0)
        train_faces(again)
        assert decoded == []


def test_it_does_not_change_what_a_study_calls_a_run():
    assert settings_hash(TrainSettings()) == settings_hash(TrainSettings(cache="somewhere"))
    assert settings_hash(TrainSettings()) != settings_hash(TrainSettings(seed=1))


# Pictures that change


def test_only_what_changed_is_decoded_again(face_folder, place, decoded):
    opened(place, scan(face_folder))
    before = one(place).stat().st_size
    decoded.clear()
    rewrite(face_folder / "Ann" / "0.png", 1)  # changed
    rewrite(face_folder / "Ann" / "new.png", 2)  # added
    (face_folder / "dora" / "3.png").unlink()  # removed
    os.rename(face_folder / "eve" / "2.png", face_folder / "eve" / "renamed.png")
    folder = scan(face_folder)
    cache = opened(place, folder)
    assert sorted(decoded) == ["Ann/0.png", "Ann/new.png", "eve/renamed.png"]
    assert_right(cache, folder)
    # The room that became free was taken first.
    assert one(place).stat().st_size == before


@pytest.mark.parametrize("keep", ["size", "time"])
def test_either_of_time_and_size_tells_a_change(face_folder, place, keep):
    path = face_folder / "Ann" / "0.bmp"
    Image.new("RGB", (30, 30), "red").save(path)
    opened(place, scan(face_folder))
    before = path.stat()
    Image.new("RGB", (30, 30) if keep == "size" else (31, 30), "blue").save(path)
    if keep == "time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 1))  # older is changed, too
    folder = scan(face_folder)
    assert_right(opened(place, folder), folder)


def test_a_reader_is_not_misled_by_a_later_run(face_folder, place):
    folder = scan(face_folder)
    early = opened(place, folder)
    early.read(folder.root, folder.paths[0])
    early_unmapped = pickle.loads(pickle.dumps(early))
    for number in range(6):
        (face_folder / "Ann" / f"{number}.png").unlink()
        rewrite(face_folder / "dora" / f"new{number}.png", number)
    opened(place, scan(face_folder))  # Ann's rows are dora's now
    for cache in (early, early_unmapped):
        assert_right(cache, folder.only([n for n in folder.names if n != "Ann"]))
        with pytest.raises(DecodeError, match="FileNotFoundError"):
            cache.read(folder.root, "Ann/0.png")


def test_a_reader_outlives_its_files(face_folder, place):
    folder = scan(face_folder)
    mapped, unmapped = opened(place, folder), opened(place, folder)
    mapped.read(folder.root, folder.paths[0])
    shutil.rmtree(place)
    assert_right(mapped, folder)
    assert_right(unmapped, folder)


# Pictures that fail


def test_a_broken_picture_is_kept_in_mind_until_it_changes(face_folder, place, decoded):
    broken = face_folder / "Ann" / "1.png"
    break_picture(broken)
    folder = scan(face_folder)
    with pytest.raises(DecodeError) as expected:
        decode(broken)
    opened(place, folder)
    decoded.clear()
    cache = opened(place, folder)
    with pytest.raises(DecodeError) as found:
        cache.read(folder.root, "Ann/1.png")
    assert str(found.value) == str(expected.value)
    assert decoded == []
    rewrite(broken)
    assert_right(opened(place, folder), folder)
    assert decoded[0] == "Ann/1.png"
    break_picture(broken)
    with pytest.raises(DecodeError):
        opened(place, folder).read(folder.root, "Ann/1.png")


def test_the_reason_names_the_path_as_it_was_given(face_folder, place, monkeypatch):
    break_picture(face_folder / "Ann" / "1.png")
    opened(place, scan(face_folder))
    monkeypatch.chdir(face_folder.parent)
    folder = scan(Path("faces"))
    cache = opened(place, folder)
    assert len(list(place.glob("*.sqlite"))) == 1
    with pytest.raises(DecodeError, match=r"^faces/Ann/1\.png: cannot be decoded"):
        cache.read(folder.root, "Ann/1.png")


@pytest.mark.parametrize("trouble", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_the_disk_s_trouble_is_not_the_picture_s(face_folder, place, monkeypatch, trouble):
    folder = scan(face_folder)

    def fail(path: Path, size: int | None = None) -> Image.Image:
        raise DecodeError(f"{path}: cannot be decoded ({type(trouble).__name__}: {trouble})")

    monkeypatch.setattr(pictures_module, "decode", fail)
    cache = opened(place, folder)
    monkeypatch.undo()
    assert_right(cache, folder)
    assert_right(opened(place, folder), folder)


# Interruptions, and runs at the same time


def build_slowly(root: Path, place: Path, log: Path, workers: int, pause: float) -> None:
    """Build the cache in a process of its own; the log tells what was decoded and read."""

    def note(line: str) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def slow(path: Path, size: int | None = None) -> Image.Image:
        note(f"decoded {path.parent.name}/{path.name}")
        time.sleep(pause)
        return decode(path, size)

    pictures_module.decode = slow  # type: ignore[attr-defined]
    cache_files.say = cache_module.say = note  # type: ignore[attr-defined]
    cache_module._BATCH, cache_module._PATIENCE = 2, 0.0  # type: ignore[misc]
    torch.set_num_threads(1)
    folder = scan(root)
    cache = opened(place, folder, workers=workers)
    note(f"sum {sum(int(cache.read(root, path).sum()) for path in folder.paths)}")


def building(*arguments: object) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=build_slowly, args=arguments)
    process.start()
    return process


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build_goes_on(face_folder, place, tmp_path, decoded, workers, number):
    process = building(face_folder, place, tmp_path / "log", workers, 0.03)
    until = time.monotonic() + 60
    while rows_in(place) < 8 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid or 0, number)
    process.join(60)
    done = rows_in(place)
    assert 8 <= done < 36
    folder = scan(face_folder)
    cache = opened(place, folder)
    assert len(decoded) == 36 - done
    assert_right(cache, folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_of_two_runs_one_builds_and_the_other_waits(face_folder, place, tmp_path, workers):
    log = tmp_path / "log"
    runs = [building(face_folder, place, log, workers, 0.02) for _ in range(2)]
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    folder = scan(face_folder)
    expected = sum(int(PREPARE(decode(face_folder / path)).sum()) for path in folder.paths)
    lines = log.read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("sum ")] == [f"sum {expected}"] * 2
    done = [line for line in lines if line.startswith("decoded ")]
    assert sorted(done) == sorted(f"decoded {path}" for path in folder.paths)
    assert sum("waiting for it" in line for line in lines) == 1
    assert sum("36 pictures x" in line for line in lines) == 1


# Damaged and foreign files


def _garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def _shorten(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _flip_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def _foreign_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE picture (other TEXT)")
    connection.commit()
    connection.close()


def _sql(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(statement)
        connection.commit()
        connection.close()

    return change


@pytest.mark.parametrize(
    "damage",
    [
        *(_garbage, _shorten, _empty, _zero, _flip_middle, Path.unlink, _foreign_database),
        _sql("UPDATE picture SET number = number + 1000"),
        _sql("UPDATE picture SET number = -number; UPDATE picture SET number = 37 + number"),
        _sql("UPDATE picture SET path = 7 WHERE number = 5"),
        _sql("UPDATE picture SET failure = 'text'"),
        _sql("UPDATE pixels SET content = (SELECT content FROM pixels WHERE number = 1)"),
        _sql("UPDATE pixels SET content = 'text'"),
        _sql("UPDATE pixels SET content = NULL, checksum = 0"),
        _sql("DELETE FROM pixels WHERE number > 20"),
        _sql("PRAGMA user_version = 7"),
        _sql("DROP TABLE picture"),
        _sql("DROP TABLE pixels"),
    ],
)
def test_a_damaged_cache_is_mended_and_never_trusted(face_folder, place, damage, decoded):
    folder = scan(face_folder)
    early = opened(place, folder)
    damage(one(place))
    cache = opened(place, folder)
    assert_right(cache, folder)
    assert_right(pickle.loads(pickle.dumps(early)), folder)
    decoded.clear()
    cache = opened(place, folder)  # it is whole now
    assert_right(cache, folder)
    assert decoded == []


def test_a_row_that_is_damaged_later_is_decoded(face_folder, place):
    folder = scan(face_folder)
    cache = opened(place, folder)
    _flip_middle(one(place))
    assert_right(cache, folder)


def test_other_versions_build_anew(face_folder, place, decoded, monkeypatch, capsys):
    folder = scan(face_folder)
    opened(place, folder)
    decoded.clear()
    capsys.readouterr()
    monkeypatch.setattr(cache_module.PIL, "__version__", "99.0")
    assert_right(opened(place, folder), folder)
    assert len(decoded) == 36
    assert "of other versions; it is built anew" in capsys.readouterr().err


# Names


name = raw_names(40, hidden=False)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(st.tuples(name, name), min_size=1, max_size=6), root=name)
def test_names_of_any_bytes(names, root):
    with tempfile.TemporaryDirectory() as home:
        top = Path(home) / os.fsdecode(root)
        for at, (person, picture) in enumerate(names):
            folder = top / os.fsdecode(person)
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / os.fsdecode(picture), "wb") as file:
                Image.new("RGB", (20, 20), (at * 30, 7, 200 - at)).save(file, "png")
        (top / os.fsdecode(names[0][0]) / "broken.png").write_bytes(b"\x89PNG\r\n")
        paths = sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())
        folder = FaceFolder(top, ("",), tuple(paths), (0,) * len(paths), ())
        place = Path(home) / ".caches" / os.fsdecode(root)
        for _ in range(2):
            cache = opened(place, folder)
            good = tuple(path for path in paths if not path.endswith("/broken.png"))
            assert_right(cache, FaceFolder(top, ("",), good, (0,) * len(good), ()))
            with pytest.raises(DecodeError, match="cannot be decoded"):
                cache.read(top, next(path for path in paths if path.endswith("/broken.png")))


# Places that cannot be used


def test_no_room_is_told_before_anything_is_decoded(face_folder, place, monkeypatch, decoded):
    folder = scan(face_folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 20_000, 20_000))
    with pytest.raises(UserError, match=r"`cache` .*0\.0 MB are needed and 0\.0 MB are free"):
        opened(place, folder)
    assert decoded == []
    opened(place, folder.only(["Ann"]))  # has room


def test_a_disk_that_fills_up_keeps_what_is_done(face_folder, place, monkeypatch, decoded):
    folder, connect = scan(face_folder), sqlite3.connect

    def small(*given: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*given, **options)
        connection.execute("PRAGMA max_page_count = 9")
        return connection

    monkeypatch.setattr(cache_module, "_BATCH", 4)
    monkeypatch.setattr(cache_module, "_PATIENCE", 0.0)
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(UserError, match="disk is full"):
        opened(place, folder)
    monkeypatch.setattr(sqlite3, "connect", connect)
    done = rows_in(place)
    decoded.clear()
    assert_right(opened(place, folder), folder)
    assert 0 < done == 36 - len(decoded)


def test_what_a_writer_holds_is_decoded(face_folder, place, decoded):
    folder = scan(face_folder)
    cache = opened(place, folder)
    decoded.clear()
    for statement, count in (("BEGIN IMMEDIATE", 0), ("BEGIN EXCLUSIVE", 1)):
        connection = sqlite3.connect(one(place))
        connection.execute(statement)
        cache.read(folder.root, folder.paths[0])
        connection.close()
        assert len(decoded) == count


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("file", "is a file; name a folder"),
        ("file/below", "cannot be used"),
        ("faces", "lies within the pictures' folder"),
        ("faces/cache", "lies within the pictures' folder"),
        ("link/cache", "lies within the pictures' folder"),
        ("/proc/none", "cannot be used"),
        ("x" * 300, "cannot be used"),
        ("", "must be a folder"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(
    face_folder: Path, tmp_path: Path, run_here: Run, where: str, message: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(face_folder)
    small = ("--backbone", "test_resnet", "--model.pretrained", "false", "--size", 32)
    given = ("--data", face_folder, "--split.validation", 2, "--cache", where, "--workers", 0)
    result = run_here(
        "train", *given, *small, "--device", "cpu", "--name", "run", "--epochs", 1, cwd=tmp_path
    )
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert "--cache" in lines[0]
    assert not (tmp_path / "runs" / "run").exists()  # the name is still free
    assert sorted(p.name for p in face_folder.iterdir()) == sorted(scan(face_folder).names)


def test_the_commands_take_it(face_folder: Path, tmp_path: Path, run_here: Run) -> None:
    small = ("--backbone", "test_resnet", "--model.pretrained", "false", "--size", 32)
    given = ("--split.validation", 2, "--workers", 0, "--device", "cpu", "--name", "run")
    trained = run_here(
        *("train", "--data", face_folder, *given, *small, "--cache", "c", "--epochs", 1),
        *("--lr", "1e-2", "--batches.people", 3, "--batches.images", 2),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "cache: 36 pictures" in trained.stderr
    plain, cached = (
        run_here("eval", "roc", *more, "--workers", 0, "--resamples", 0, "--out", out, cwd=tmp_path)
        for out, more in (("a", ()), ("b", ("--cache", "c")))
    )
    assert (plain.returncode, cached.returncode) == (0, 0), cached.stderr
    assert "cache:" not in cached.stderr  # all of it was there
    one, other = (json.loads((tmp_path / out / "roc.json").read_text("utf-8")) for out in "ab")
    assert one["auc"] == other["auc"]
    assert one["curve"] == other["curve"]
