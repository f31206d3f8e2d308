"""Gallery files that are missing, foreign or hostile, and names that cannot be kept."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from siamese import Embedder, Gallery
from siamese.errors import UserError


@pytest.fixture
def model(make_checkpoint: Callable[..., Path]) -> Embedder:
    return Embedder.load(make_checkpoint("run"), "cpu")


def test_only_its_owner_may_read_it(model: Embedder, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Gallery(tmp_path / "g.db", model)
    finally:
        os.umask(before)
    assert (tmp_path / "g.db").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("*g.db*")] == ["g.db"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such gallery; make one with siamese-use enroll"),
        (b"", "is no gallery, but another database"),
        (b"SQLite format 3\0" + bytes(4000), "cannot be used"),
        (b"not a database" * 100, "cannot be used"),
    ],
)
def test_what_is_no_gallery_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "g.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"g\.db: {message}"):
        Gallery(path, create=False)
    assert path.exists() == (content is not None)
    if content is not None:
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE picture SET embedding = x'00'",
        "UPDATE picture SET embedding = 7",
        "UPDATE picture SET embedding = zeroblob(32)",
        "UPDATE head SET dimensions = -1",
        "UPDATE head SET dimensions = 10000000000",
        "UPDATE head SET fingerprint = 5.5",
        "DELETE FROM head",
        "PRAGMA writable_schema = 1; DELETE FROM sqlite_master WHERE name = 'picture'",
        "PRAGMA foreign_keys = 0; DELETE FROM person",
        "PRAGMA user_version = 99",
    ],
)
def test_damage_is_told_in_a_line(
    change: str, model: Embedder, face_folder: Path, tmp_path: Path
) -> None:
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.enroll_folder(face_folder)
    connection = sqlite3.connect(tmp_path / "g.db")
    connection.executescript(change)
    connection.close()
    with pytest.raises(UserError, match=r"g\.db: "):
        Gallery(tmp_path / "g.db", model).identify(face_folder / "Ann" / "0.png")


def test_mutated_files_end_in_a_line(model: Embedder, face_folder: Path, tmp_path: Path) -> None:
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.enroll_folder(face_folder)
    whole = (tmp_path / "g.db").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole) if rng.random() < 0.5 else 300, 12):
            content[place] = rng.integers(256)
        (tmp_path / "m.db").write_bytes(content)
        # Another error than this one would end the test.
        with suppress(UserError), Gallery(tmp_path / "m.db", create=False) as gallery:
            gallery.identify_embeddings(np.ones((1, 8)))
            gallery.people()
            gallery.person("eve")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 501, "\udcff"])
def test_names_that_cannot_be_kept_are_told(
    name: str, model: Embedder, face_folder: Path, tmp_path: Path
) -> None:
    gallery = Gallery(tmp_path / "g.db", model)
    with pytest.raises(UserError, match="cannot be kept"):
        gallery.enroll(name, [face_folder / "Ann" / "0.png"])


def test_passwords_are_not_printed() -> None:
    with pytest.raises(UserError, match=r"`gallery` postgresql://ann@") as error:
        Gallery("postgresql://ann:secret@127.0.0.1:1/none", create=False)
    assert "secret" not in str(error.value)
