"""Embeddings from files: whole ones come back as written, others are refused in one line."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from siamese.config import CurveSettings, check_evaluation
from siamese.errors import UserError
from siamese.report.embedding_files import load_embeddings, save_embeddings
from siamese.report.embedding_sources import Embeddings
from siamese.report.verification_report import judge

NAMES = ("夏子", "Bob Lee", "Chloé", "dora")


def people(per_person: int = 3, noise: float = 0.4) -> Embeddings:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(NAMES)), per_person)
    centres = rng.normal(size=(len(NAMES), 8))
    vectors = centres[labels] + rng.normal(scale=noise, size=(len(labels), 8))
    paths = tuple(f"{NAMES[label]}/写真 {at}.jpg" for at, label in enumerate(labels))
    return Embeddings(vectors.astype(np.float32), labels.astype(np.int64), NAMES, paths, "test")


def write(path: Path, **arrays) -> Path:
    found = people()
    np.savez(path, **{"embeddings": found.embeddings, "labels": found.labels, **arrays})
    return path


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new folder" / "e.npz"
    saved = people()
    save_embeddings(path, saved)
    loaded = load_embeddings(path)
    assert np.array_equal(loaded.embeddings, saved.embeddings)
    assert loaded.embeddings.dtype == np.float32
    assert np.array_equal(loaded.labels, saved.labels)
    assert loaded.labels.dtype == np.int64
    assert loaded.names == saved.names
    assert loaded.paths == saved.paths
    assert [file.name for file in path.parent.iterdir()] == ["e.npz"]


def test_the_file_holds_plain_arrays(tmp_path):
    save_embeddings(tmp_path / "e.npz", people())
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in file.files}
    assert kinds == {"embeddings": "f", "labels": "i", "names": "U", "paths": "U"}


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "e.npz"
    save_embeddings(path, people())
    before = path.read_bytes()

    def broken(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(UserError, match=r"e\.npz: cannot be written \(disk full"):
        save_embeddings(path, people(2))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["e.npz"]


def test_names_and_paths_are_optional(tmp_path):
    loaded = load_embeddings(write(tmp_path / "e.npz"))
    assert loaded.names is None
    assert loaded.paths is None
    assert len(loaded.labels) == 12


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"e\.npz: no such file"):
        load_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = write(tmp_path / "e.npz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"e\.npz: is not a readable \.npz"):
        load_embeddings(path)


def test_any_other_file_is_refused(tmp_path):
    path = tmp_path / "e.npz"
    path.write_text("embeddings, labels\n")
    with pytest.raises(UserError, match=r"is not a readable \.npz"):
        load_embeddings(path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder: str):
        self.folder = folder


@pytest.mark.parametrize("name", ["embeddings", "labels", "names", "paths"])
def test_pickled_objects_are_refused_and_not_run(tmp_path, name):
    hostile = np.array([Harmful(str(tmp_path / "run"))], dtype=object)
    path = write(tmp_path / "e.npz", **{name: hostile})
    with pytest.raises(UserError, match="pickled objects inside"):
        load_embeddings(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["embeddings", "labels"])
def test_a_missing_array_is_named(tmp_path, name):
    other = {"labels": "embeddings", "embeddings": "labels"}[name]
    np.savez(tmp_path / "e.npz", **{other: np.zeros((3, 2))})
    with pytest.raises(UserError, match=f"has no array '{name}'|must be numbers of shape"):
        load_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize("labels", [[0, 1, 4], [-1, 0, 1]])
def test_labels_without_a_name_are_refused(tmp_path, labels):
    path = write(
        tmp_path / "e.npz",
        embeddings=np.ones((3, 2)),
        labels=np.array(labels),
        names=np.array(["a", "b", "c", "d"]),
    )
    with pytest.raises(UserError, match=rf"labels .*{min(labels)}.*{max(labels)}.* 4 names"):
        load_embeddings(path)


def test_a_wrong_number_of_paths_is_refused(tmp_path):
    with pytest.raises(UserError, match="2 paths for 12 embeddings"):
        load_embeddings(write(tmp_path / "e.npz", paths=np.array(["a.jpg", "b.jpg"])))


# Judging a file


def settings(path: Path, **others) -> CurveSettings:
    return CurveSettings(embeddings=str(path), out=str(path.parent / "out"), **others)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros(5, int)}, "5 labels for 12 embeddings"),
        ({"labels": np.zeros(12)}, "no impostor pair"),
        ({"labels": np.zeros((12, 1), int)}, r"labels must .*shape \(N,\)"),
        ({"labels": np.zeros(12, int)}, "no impostor pair"),
        ({"labels": np.arange(12)}, "no genuine pair"),
        ({"embeddings": np.zeros(12)}, r"embeddings must be numbers of shape \(N, D\)"),
        ({"embeddings": np.full((12, 2), "x")}, "embeddings must be numbers"),
        ({"embeddings": np.full((12, 2), np.nan)}, "12 of 12 embeddings hold NaN or Inf"),
        ({"embeddings": np.zeros((12, 2))}, "12 of 12 embeddings are all zeros"),
        ({"paths": np.array(["a.jpg"] * 12)}, "the path a.jpg is there twice"),
    ],
)
def test_arrays_that_cannot_be_judged_are_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        judge(settings(write(tmp_path / "e.npz", **arrays)), "roc")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["roc", "pr", "det"])
def test_a_judgement_is_written(tmp_path, kind):
    save_embeddings(tmp_path / "e.npz", people())
    found = judge(settings(tmp_path / "e.npz"), kind)
    assert {file.name for file in found.files} == {
        f"{kind}.png",
        f"{kind}.svg",
        f"{kind}.pdf",
        f"{kind}.json",
    }
    assert {file.name for file in (tmp_path / "out").iterdir()} == {f.name for f in found.files}
    table = json.loads((tmp_path / "out" / f"{kind}.json").read_text(encoding="utf-8"))
    for name in ("auc", "ap", "eer", "tar_at_far_1e-2", "genuine_pairs", "impostor_pairs"):
        assert table[name] == found.verified.figures[name]
    assert (table["identities"], table["images"]) == (4, 12)
    assert (table["genuine_pairs"], table["impostor_pairs"]) == (12, 54)
    assert table["settings"]["embeddings"] == str(tmp_path / "e.npz")
    assert set(table["supported"].values()) == {False}
    low, high = table["intervals"]["auc"]
    assert 0 <= low <= table["auc"] <= high <= 1
    assert len(table["curve"]["fmr"]) == len(table["curve"]["recall"]) > 10


def test_without_out_the_results_lie_below_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_embeddings(tmp_path / "e.npz", people())
    found = judge(CurveSettings(embeddings=str(tmp_path / "e.npz")), "roc")
    assert {file.parent for file in found.files} == {Path("runs/eval-e")}


@pytest.mark.parametrize("target", [*NAMES, "Chloe\u0301"])
def test_one_person_is_judged_against_everybody(tmp_path, target):
    save_embeddings(tmp_path / "e.npz", people(per_person=3))
    figures = judge(settings(tmp_path / "e.npz", target=target), "roc").verified.figures
    assert (figures["genuine_pairs"], figures["impostor_pairs"]) == (3, 27)


def test_without_names_the_target_is_a_label(tmp_path):
    path = write(tmp_path / "e.npz")
    assert judge(settings(path, target="2"), "pr").verified.figures["genuine_pairs"] == 3
    with pytest.raises(UserError, match="`target` 7: nobody of that name among 4 people"):
        judge(settings(path, target="7"), "pr")


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("Bob Le", "did you mean Bob Lee"),
        ("夏", "did you mean 夏子"),
        ("xyz", "there are 夏子, Bob"),
    ],
)
def test_an_unknown_target_is_refused_with_the_nearest_name(tmp_path, target, hint):
    save_embeddings(tmp_path / "e.npz", people())
    with pytest.raises(UserError, match=f"`target` {target}: nobody of that name.*{hint}"):
        judge(settings(tmp_path / "e.npz", target=target), "roc")


def test_a_target_with_one_picture_has_no_genuine_pair(tmp_path):
    path = write(tmp_path / "e.npz", labels=np.array([0] + [1] * 11))
    with pytest.raises(UserError, match="no genuine pair"):
        judge(settings(path, target="0"), "roc")


@pytest.mark.parametrize("other", [{"checkpoint": "c.pt"}, {"data": "faces"}, {"part": "test"}])
def test_an_embeddings_file_is_judged_alone(tmp_path, other):
    with pytest.raises(UserError, match=f"`embeddings`: give it without .*`{next(iter(other))}`"):
        check_evaluation(settings(write(tmp_path / "e.npz"), **other))


# Files that numpy opens, or fails on, in ways of their own.


def test_a_plain_npy_file_needs_labels(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((3, 2)))
    with pytest.raises(UserError, match=r"has no array 'labels'.*`labels`"):
        load_embeddings(tmp_path / "e.npy")


def test_a_damaged_compressed_file_is_refused(tmp_path):
    path = tmp_path / "e.npz"
    np.savez_compressed(path, embeddings=np.zeros((50, 8)), labels=np.zeros(50, int))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("embeddings.npy").header_offset
    for at in range(start + 60, start + 90):
        content[at] = 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a readable"):
        load_embeddings(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"names": np.array("夏子")},
        {"paths": np.array("a.jpg")},
        {"labels": np.array(3), "paths": np.array(["a"])},
    ],
)
def test_arrays_without_a_dimension_are_refused(tmp_path, arrays):
    with pytest.raises(UserError):
        load_embeddings(write(tmp_path / "e.npz", **arrays))


def test_a_file_in_the_place_of_the_results_is_refused(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UserError, match="out"):
        judge(settings(write(tmp_path / "e.npz")), "roc")
