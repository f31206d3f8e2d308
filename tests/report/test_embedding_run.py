"""Embeddings written as they are made: those of the .npz, whether the run was stopped or not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamese.data.folder import FaceFolder, scan_folder
from siamese.errors import UserError
from siamese.models.inference import Embedder
from siamese.report import embedding_run
from siamese.report.embedding_files import load_embeddings
from siamese.report.embedding_run import write_rows
from tests.runs import write_random_model


@pytest.fixture
def embedder(tmp_path: Path) -> Embedder:
    path = write_random_model(tmp_path / "checkpoints" / "run" / "best.pt")
    return Embedder.load(path, "cpu", batch=5)


@pytest.fixture
def folder(face_folder: Path, monkeypatch: pytest.MonkeyPatch) -> FaceFolder:
    """36 pictures; how far a run is, is noted every ten."""
    monkeypatch.setattr(embedding_run, "_PICTURES", 10)
    return scan_folder(face_folder)


def _quiet(line: str) -> None:
    pass


def test_the_command_writes_what_the_npz_holds(
    embedder: Embedder, face_folder: Path, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    broken = face_folder / "Ann" / "2.png"
    broken.write_bytes(broken.read_bytes()[:300])
    for name in ("e.npz", "e.npy"):
        done = run_here("eval", "embed", "--data", "faces", "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "wrote 35 embeddings of 8 dimensions" in done.stdout
        assert "Ann/2.png" in done.stdout
    whole = load_embeddings(tmp_path / "e.npz")
    rows = load_embeddings(tmp_path / "e.npy", tmp_path / "e.csv")
    assert np.array_equal(rows.embeddings, whole.embeddings)
    assert rows.paths == whole.paths
    assert rows.names is not None
    assert whole.names is not None
    assert [rows.names[k] for k in rows.labels] == [whole.names[k] for k in whole.labels]
    judged = [
        run_here("eval", "roc", *given, "--out", out, "--resamples", 0, cwd=tmp_path)
        for given, out in (
            (("--embeddings", "e.npz"), "a"),
            (("--embeddings", "e.npy", "--labels", "e.csv"), "b"),
        )
    ]
    assert [one.returncode for one in judged] == [0, 0]
    a, b = (json.loads((tmp_path / out / "roc.json").read_text("utf-8")) for out in "ab")
    assert (a["auc"], a["ap"], a["eer"]) == (b["auc"], b["ap"], b["eer"])
    assert not list(tmp_path.glob(".e.npy*"))


def test_a_stopped_run_goes_on_and_embeds_nothing_twice(
    embedder: Embedder, folder: FaceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, kept, _ = write_rows(embedder, folder, tmp_path / "whole.npy", say=_quiet)
    out = tmp_path / "stopped.npy"
    out.write_text("earlier")
    batches = Embedder.embed_in_batches
    begun: list[int] = []

    def stopping(self: Embedder, *given: Any, first: int = 0, **options: Any) -> Any:
        begun.append(first)
        for number, batch in enumerate(batches(self, *given, first=first, **options)):
            if len(begun) < 3 and number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Embedder, "embed_in_batches", stopping)
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_rows(embedder, folder, out, say=said.append)
        assert out.read_text() == "earlier"
    vectors, positions, _ = write_rows(embedder, folder, out, say=said.append)
    assert begun == [0, 10, 20]
    assert said == ["going on at picture 10 of 36", "going on at picture 20 of 36"]
    assert np.array_equal(vectors, expected)
    assert np.array_equal(positions, kept)


def test_another_model_or_a_changed_picture_begins_anew(
    embedder: Embedder, folder: FaceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "e.npy"
    place = tmp_path / ".e.npy.part"
    other = write_random_model(tmp_path / "checkpoints" / "other" / "best.pt", seed=1)

    def stop_late(change: Callable[[], None], with_: Embedder, words: str) -> None:
        batches = Embedder.embed_in_batches

        def stopping(self: Embedder, *given: Any, **options: Any) -> Any:
            for number, batch in enumerate(batches(self, *given, **options)):
                if number == 5:
                    raise KeyboardInterrupt
                yield batch

        with monkeypatch.context() as patch:
            patch.setattr(Embedder, "embed_in_batches", stopping)
            with pytest.raises(KeyboardInterrupt):
                write_rows(embedder, folder, out, say=_quiet)
        change()
        said: list[str] = []
        vectors, _, _ = write_rows(with_, folder, out, say=said.append)
        assert len(said) == 1
        assert words in said[0]
        assert np.array_equal(vectors, with_.embed_listed(folder)[0])
        assert not place.exists()

    picture = folder.root / folder.paths[0]
    stop_late(lambda: None, Embedder.load(other, "cpu", batch=5), "another model")
    stop_late(lambda: picture.write_bytes(picture.read_bytes() + b"x"), embedder, "pictures")
    for content in (
        "{",
        "[1]",
        '{"key": 1}',
        '{"paths": 3, "reasons": []}',
        "\0" * 100,
    ):
        stop_late(lambda text=content: (place / "done.json").write_text(text), embedder, "damaged")  # type: ignore[misc]
    stop_late(lambda: (place / "rows.npy").write_bytes(b"short"), embedder, "damaged")
    far = np.full(36, 99).tobytes()
    stop_late(lambda: (place / "kept").write_bytes(far), embedder, "damaged")
    for field, value in (("pictures", 10**9), ("pictures", 7), ("rows", -1), ("paths", ["a"])):

        def changed(field: str = field, value: object = value) -> None:
            note = json.loads((place / "done.json").read_text())
            (place / "done.json").write_text(json.dumps({**note, field: value}))

        stop_late(changed, embedder, "damaged")


@pytest.mark.parametrize("links", [True, False])
def test_a_run_that_ended_but_for_tidying_up_embeds_nothing_again(
    embedder: Embedder,
    folder: FaceFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    links: bool,
) -> None:
    if not links:

        def refused(*given: Any) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refused)
    out, place = tmp_path / "e.npy", tmp_path / ".e.npy.part"
    with monkeypatch.context() as patch:
        patch.setattr(embedding_run.shutil, "rmtree", lambda *given, **options: None)
        expected = write_rows(embedder, folder, out, say=_quiet)[0].copy()
    assert (place / "rows.npy").exists()
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_in_batches", lambda *given, **options: [])
        vectors, positions, _ = write_rows(embedder, folder, out, say=said.append)
    assert said == ["going on at picture 36 of 36"]
    assert np.array_equal(vectors, expected)
    assert len(positions) == 36
    assert not place.exists()


def test_what_an_earlier_version_left_half_done_is_told(
    embedder: Embedder, folder: FaceFolder, tmp_path: Path
) -> None:
    out, place = tmp_path / "e.npy", tmp_path / ".e.npy.part"
    place.mkdir()
    (place / "rows").write_bytes(bytes(320))
    (place / "done.json").write_text("{}")
    said: list[str] = []
    vectors, _, _ = write_rows(embedder, folder, out, say=said.append)
    assert len(said) == 1
    assert "an earlier version" in said[0]
    assert len(vectors) == 36
    assert not place.exists()


def test_two_processes_do_not_write_one_file(
    embedder: Embedder, folder: FaceFolder, tmp_path: Path
) -> None:
    out = tmp_path / "e.npy"
    refused: list[str] = []

    class Meanwhile:
        """A cache that tries the same while the first run is at it."""

        def read(self, root: Path, path: str) -> Any:
            with pytest.raises(UserError, match=r"e\.npy: another process") as error:
                write_rows(embedder, folder, out)
            refused.append(str(error.value))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(embedder, folder, out, cache=Meanwhile())  # type: ignore[arg-type]
    assert refused


_WORK = """
import sys
from pathlib import Path
from siamese.data.folder import scan_folder
from siamese.models.inference import Embedder
from siamese.report import embedding_run
embedding_run._PICTURES = 10
embedder = Embedder.load(sys.argv[1], "cpu", batch=5)
embedding_run.write_rows(embedder, scan_folder(Path(sys.argv[2])), Path(sys.argv[3]))
"""


def test_killed_at_any_moment_the_rows_are_those_of_a_whole_run(
    embedder: Embedder, draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    faces = draw_people(tmp_path / "many", [f"p{n}" for n in range(60)], 8)
    out, place = tmp_path / "e.npy", tmp_path / ".e.npy.part"
    command = [sys.executable, "-c", _WORK, embedder.origin, str(faces), str(out)]
    for kill in range(2):
        process = subprocess.Popen(command)
        while process.poll() is None and not (place / "done.json").exists():
            time.sleep(0.01)
        time.sleep(0.05 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert place.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on at picture" in done.stdout
    folder = scan_folder(faces)
    assert np.array_equal(np.load(out), embedder.embed_listed(folder)[0])
    with open(out.with_suffix(".csv"), newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(folder.paths)
