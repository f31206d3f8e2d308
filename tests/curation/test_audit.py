"""The whole audit, from the command line: what is planted is found, told, moved and undone."""

import csv
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamese.auditing.same_person import same_people
from siamese.auditing.suspects import find_suspects
from tests.auditing.people import draw
from tests.curation.test_check import picture
from tests.curation.test_moves import tree
from tests.report.conftest import trained, trained_once

__all__ = ["trained", "trained_once"]

PEOPLE, IMAGES = 14, 10
NAMES = ("夏子", "Anna Maria", "Émile", "<b>", *(f"p{at:02}" for at in range(4, 40)))

Run = Callable[..., Any]


def paths_of(labels: np.ndarray, first: int = 0) -> list[str]:
    return [f"{NAMES[label]}/{at + first:03}.png" for at, label in enumerate(labels)]


def save(file: Path, embeddings: np.ndarray, labels: np.ndarray, **more: Any) -> Path:
    """An .npz; ``paths`` and ``names`` as everywhere here unless they are given, None: without."""
    arrays = {"names": NAMES, **more}
    if "paths" not in arrays:
        arrays["paths"] = paths_of(labels)
    np.savez(
        file,
        embeddings=embeddings,
        labels=labels,
        **{key: np.asarray(value) for key, value in arrays.items() if value is not None},
    )
    return file


def grow(root: Path, labels: np.ndarray, first: int = 0) -> Path:
    """A picture of its own for every label."""
    for at, path in enumerate(paths_of(labels, first)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture(first + at).save(root / path)
    return root


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def planted(seed: int = 3) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Embeddings, folders, and of six misplaced pictures whom they show."""
    embeddings, shown = draw(PEOPLE, IMAGES, seed=seed)
    labels = shown.copy()
    for at, folder in ((3, 5), (17, 0), (41, 9), (77, 1), (102, 13), (139, 4)):
        labels[at] = folder
    return embeddings, labels, {int(at): int(shown[at]) for at in np.flatnonzero(labels != shown)}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def audit(run_here) -> Run:
    """Runs the command, which has to succeed; gives back what it printed."""

    def run(*arguments: object) -> str:
        done = run_here("data", "audit", *arguments, "--out", "out", "--shown", 2, "--workers", 0)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


@pytest.fixture
def refused(run_here) -> Run:
    """Runs the command, which has to refuse; gives back its one line."""

    def run(*arguments: object) -> str:
        done = run_here("data", "audit", *arguments)
        assert done.returncode == 2, done.stdout
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        return str(done.stderr)

    return run


def test_planted_wrong_pictures_are_found_with_their_owners(place, audit):
    embeddings, labels, misplaced = planted()
    root = grow(place / "faces", labels)
    text = audit(root, "--embeddings", save(place / "e.npz", embeddings, labels))
    found = rows_of(place / "out" / "suspects.csv")
    paths = paths_of(labels)
    assert {row["path"] for row in found[:6]} == {paths[at] for at in misplaced}
    assert len(found) <= 8
    owners = {row["path"]: row["owner"] for row in found}
    assert [owners[paths[at]] for at in misplaced] == [NAMES[who] for who in misplaced.values()]
    assert [row["rank"] for row in found] == [str(1 + at) for at in range(len(found))]
    for row in found:
        assert row["path"].startswith(row["person"] + "/")
        assert 0.5 <= float(row["suspicion"]) <= 1
    assert float(found[0]["owner_score"]) > float(found[0]["own_score"])
    assert f"{PEOPLE} people, {PEOPLE * IMAGES} pictures" in text
    assert rows_of(place / "out" / "same_person.csv") == []
    assert rows_of(place / "out" / "mixed.csv") == []
    assert rows_of(place / "out" / "leaks.csv") == []
    assert sorted(os.listdir(place / "out")) == [
        "audit.html", "leaks.csv", "mixed.csv", "plans", "same_person.csv",
        "suspects.csv",
    ]  # fmt: skip


def test_one_person_under_two_names_is_told_and_its_pictures_are_no_suspects(place, audit):
    embeddings, shown = draw(PEOPLE, 2 * IMAGES, seed=1)
    labels = shown.copy()
    labels[np.flatnonzero(shown == 2)[IMAGES:]] = PEOPLE  # half of them under another name
    wrong = np.flatnonzero(shown == 2)[0], np.flatnonzero(shown == 7)[0]
    labels[wrong[0]], labels[wrong[1]] = 6, 2
    text = audit("--embeddings", save(place / "e.npz", embeddings, labels))
    (same,) = rows_of(place / "out" / "same_person.csv")
    assert {same["first"], same["second"]} == {NAMES[2], NAMES[PEOPLE]}
    right = 1 - find_suspects(embeddings, labels).probability
    (certain,) = same_people(embeddings, labels, right).probability
    assert float(same["probability"]) == pytest.approx(certain, abs=1e-6)
    found = {row["path"]: row["owner"] for row in rows_of(place / "out" / "suspects.csv")}
    paths = paths_of(labels)
    assert found[paths[wrong[0]]] == NAMES[PEOPLE]  # the larger of its owner's two folders
    assert found[paths[wrong[1]]] == NAMES[7]
    assert len(found) <= 4
    assert f"{NAMES[2]} = {NAMES[PEOPLE]}" in text or f"{NAMES[PEOPLE]} = {NAMES[2]}" in text
    assert "next:" not in text  # nothing is known of the folder


def test_two_people_under_one_name_are_told(place, audit):
    embeddings, shown = draw(PEOPLE, IMAGES, seed=2)
    labels = np.where(shown == PEOPLE - 1, 3, shown)
    save(place / "e.npz", embeddings, labels)
    text = audit("--embeddings", "e.npz")
    (mixed,) = rows_of(place / "out" / "mixed.csv")
    assert mixed["person"] == NAMES[3]
    assert (mixed["pictures"], mixed["other_pictures"]) == (str(IMAGES), str(IMAGES))
    assert f"'{NAMES[3]}': 10 + 10 pictures" in text


def test_one_wrong_picture_is_no_second_person(place, audit):
    embeddings, labels, _ = planted(seed=0)
    text = audit("--embeddings", save(place / "e.npz", embeddings, labels))
    assert rows_of(place / "out" / "mixed.csv") == []
    assert "two people under one name" not in text
    assert len(rows_of(place / "out" / "suspects.csv")) >= 5


def test_folders_of_one_wrong_picture_do_not_spoil_the_model(place, audit):
    """Such as a person's single picture under another name."""
    embeddings, shown = draw(30, 20, seed=2)
    rng = np.random.default_rng(2)
    labels, wrong = shown.copy(), rng.permutation(600)[:60]
    labels[wrong] = (shown[wrong] + rng.integers(1, 30, 60)) % 30
    for alone in range(10):
        labels[np.flatnonzero((shown == alone) & (labels == alone))[0]] = 30 + alone
    audit("--embeddings", save(place / "e.npz", embeddings, labels))
    found = {row["path"] for row in rows_of(place / "out" / "suspects.csv")}
    paths = paths_of(labels)
    assert sum(paths[at] in found for at in wrong) >= 55


def test_quarantine_and_restore_give_the_same_folder(place, audit, run_here):
    embeddings, labels, misplaced = planted()
    root = grow(place / "faces", labels)
    save(place / "e.npz", embeddings, labels)
    before = tree(root)
    text = audit("faces", "--embeddings", "e.npz", "--quarantine", "apart")
    suspects = [row["path"] for row in rows_of(place / "out" / "suspects.csv")]
    assert len(suspects) >= len(misplaced)
    assert not [path for path in suspects if (root / path).exists()]
    assert "siamese-data mend" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("undo: ")]
    undo = shlex.split(line.removeprefix("undo: "))
    assert undo[:2] == ["siamese-data", "restore"]
    done = run_here("data", *undo[1:])
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(root) == before
    again = run_here("data", *undo[1:])
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert tree(root) == before


def test_the_command_that_is_told_moves_the_same(place, audit, run_here):
    embeddings, labels, _ = planted()
    root = grow(place / "my faces", labels)
    before = tree(root)
    text = audit("my faces", "--embeddings", save(place / "e.npz", embeddings, labels))
    (line,) = [line for line in text.splitlines() if "siamese-data mend" in line]
    done = run_here(*shlex.split(line.removeprefix("next: siamese-")))
    assert (done.returncode, done.stderr) == (0, "")
    suspects = [row["path"] for row in rows_of(place / "out" / "suspects.csv")]
    assert not [path for path in suspects if (root / path).exists()]
    undo = shlex.split(done.stdout.splitlines()[-1].removeprefix("undo: siamese-"))
    assert run_here(*undo).returncode == 0
    assert tree(root) == before


def test_a_folder_after_the_quarantine_is_audited_again(place, audit):
    """The second look at the same embeddings leaves out what was moved."""
    embeddings, labels, _ = planted()
    root = grow(place / "faces", labels)
    save(place / "e.npz", embeddings, labels, root=str(root))
    with pytest.raises(AssertionError, match="--quarantine: needs the folder"):
        audit("--embeddings", "e.npz", "--quarantine", "apart")  # the file alone may not say it
    audit("faces", "--embeddings", "e.npz", "--quarantine", "apart")
    moved = {row["path"] for row in rows_of(place / "out" / "suspects.csv")}
    text = audit("faces", "--embeddings", "e.npz", "--quarantine", "apart")
    left = {row["path"] for row in rows_of(place / "out" / "suspects.csv")}
    assert not moved & left
    assert f"{len(moved)} embedded pictures are not in" in text


def test_pictures_and_embeddings_that_have_no_counterpart(place, audit):
    embeddings, labels, misplaced = planted()
    root = grow(place / "faces", labels)
    paths = paths_of(labels)
    save(place / "e.npz", embeddings, labels)
    gone = [paths[at] for at in (20, 21)]
    for path in gone:
        (root / path).unlink()
    shutil.rmtree(root / NAMES[12])
    picture(7000).save(root / NAMES[5] / "new.png")
    (root / "new").mkdir()
    picture(7001).save(root / "new" / "1.png")
    text = audit(root, "--embeddings", "e.npz")
    absent = 2 + sum(label == 12 for label in labels)
    assert f"{absent} embedded pictures are not in" in text
    assert "2 pictures of" in text
    assert f"{PEOPLE - 1} people, {PEOPLE * IMAGES - absent} pictures" in text
    found = {row["path"] for row in rows_of(place / "out" / "suspects.csv")}
    assert {paths[at] for at in misplaced if labels[at] != 12} - set(gone) <= found
    assert not [path for path in found if not (root / path).exists()]


def test_what_stands_in_both_folders(place, audit):
    """The same file, nearly the same picture, one person under two names, the same name."""
    embeddings, shown = draw(24, IMAGES, seed=3)
    here, there = shown < 13, shown >= 12  # person 12 is in both
    ours, theirs = shown[here], shown[there].copy()
    theirs[theirs == 12] = 30
    theirs[theirs == 23] = 0  # another 夏子
    root, other = grow(place / "train", ours), grow(place / "test", theirs, first=5000)
    mine, yours = paths_of(ours), paths_of(theirs, 5000)
    shutil.copy2(root / mine[15], other / yours[25])
    with Image.open(root / mine[33]) as original:
        original.resize((80, 96), Image.Resampling.BICUBIC).save(other / yours[44])
    save(place / "a.npz", embeddings[here], ours, root=str(root))
    # Numbered from 0 without gaps or not: names tell who is who.
    save(place / "b.npz", embeddings[there], theirs, paths=yours, root=str(other))
    text = audit(root, "--embeddings", "a.npz", "--against", "b.npz")
    leaks = {(row["kind"], row["first"], row["second"]): float(row["score"])
             for row in rows_of(place / "out" / "leaks.csv")}  # fmt: skip
    assert set(leaks) == {
        ("file", mine[15], yours[25]),
        ("picture", mine[33], yours[44]),
        ("person", NAMES[12], NAMES[30]),
        ("name", "夏子", "夏子"),
    }
    assert leaks["file", mine[15], yours[25]] == 1
    pair = embeddings[here][33], embeddings[there][44]
    cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
    assert leaks["picture", mine[33], yours[44]] == pytest.approx(cosine, abs=1e-5)
    assert "4 leaks between the two folders" in text
    assert "In both folders" in (place / "out" / "audit.html").read_text("utf-8")


def test_embeddings_alone_are_held_against_others(place, audit):
    embeddings, shown = draw(24, IMAGES, seed=3)
    first = shown < 13
    for name, chosen in (("a", first), ("b", shown >= 12)):
        labels = shown[chosen]
        save(place / f"{name}.npz", embeddings[chosen], labels, paths=None, names=None)
    audit("--embeddings", "a.npz", "--against", "b.npz")
    leaks = [(row["kind"], row["first"], row["second"])
             for row in rows_of(place / "out" / "leaks.csv")]  # fmt: skip
    assert leaks == [("person", "12", "12")]


def test_without_names_and_paths_labels_and_positions_are_told(place, audit):
    embeddings, labels, misplaced = planted()
    odd = labels * 7 - 3  # gaps, and one below 0
    save(place / "e.npz", embeddings, odd, names=None, paths=None)
    text = audit("--embeddings", "e.npz")
    found = rows_of(place / "out" / "suspects.csv")
    assert {row["path"] for row in found[:6]} == {f"#{at}" for at in misplaced}
    owners = {row["path"]: row["owner"] for row in found}
    assert all(owners[f"#{at}"] == str(who * 7 - 3) for at, who in misplaced.items())
    assert "siamese-data" not in text


def test_names_of_labels_with_gaps(place, audit):
    embeddings, labels, misplaced = planted()
    names = [f"name {at}" for at in range(3 * PEOPLE)]
    save(place / "e.npz", embeddings, labels * 3, names=names, paths=None)
    audit("--embeddings", "e.npz")
    found = {row["path"]: row["owner"] for row in rows_of(place / "out" / "suspects.csv")}
    assert all(found[f"#{at}"] == f"name {3 * who}" for at, who in misplaced.items())


def test_a_checkpoint_and_the_second_look(trained, audit):
    text = audit("faces", "--checkpoint", "checkpoints/run/best.pt", "--against", "others")
    out = trained / "out"
    assert "16 people, 80 pictures" in text
    with np.load(out / "embeddings.npz") as kept:
        assert kept["embeddings"].shape == (80, 16)
    tables = {name: (out / name).read_bytes() for name in
              ("suspects.csv", "same_person.csv", "mixed.csv")}  # fmt: skip
    kinds = [row["kind"] for row in rows_of(out / "leaks.csv")]
    assert kinds.count("file") == kinds.count("picture") == 0
    names = {row["first"] for row in rows_of(out / "leaks.csv") if row["kind"] == "name"}
    people = {row["first"] for row in rows_of(out / "leaks.csv") if row["kind"] == "person"}
    assert "人0 x" in names | people
    written = (out / "embeddings.npz").stat().st_mtime_ns
    for given in (("faces",), ()):
        audit(*given, "--embeddings", "out/embeddings.npz")
        assert tables == {name: (out / name).read_bytes() for name in tables}
        assert (out / "embeddings.npz").stat().st_mtime_ns == written


def test_split_merges_what_the_same_embeddings_say_in_the_folder_that_is_given(place, run_here):
    embeddings, shown = draw(PEOPLE, 2 * IMAGES, seed=1)
    labels = shown.copy()
    labels[np.flatnonzero(shown == 2)[IMAGES:]] = PEOPLE
    root = grow(place / "faces", labels)
    save(place / "e.npz", embeddings, labels, root=str(place / "elsewhere"))
    done = run_here("data", "split", root, "--embeddings", "e.npz", "--out", "lists")
    assert done.returncode == 0, done.stderr
    assert f"{PEOPLE} people" in done.stdout
    assert f"one person, {NAMES[PEOPLE]}: {NAMES[PEOPLE]}, {NAMES[2]}" in done.stdout


def test_results_go_where_the_folder_says(place, run_here):
    embeddings, labels, _ = planted()
    grow(place / "faces.v2", labels)
    save(place / "e.v1.npz", embeddings, labels)
    assert run_here("data", "audit", "faces.v2", "--embeddings", "e.v1.npz").returncode == 0
    assert run_here("data", "audit", "--embeddings", "e.v1.npz").returncode == 0
    assert sorted(os.listdir("runs")) == ["audit-e.v1", "audit-faces.v2"]


def test_bad_input_is_one_line(place, refused):
    embeddings, labels, _ = planted()
    good = save(place / "e.npz", embeddings, labels)
    root = grow(place / "faces", labels[:30])

    def told(*arguments: object, **arrays: Any) -> str:
        if arrays:
            chosen = {"embeddings": embeddings, "labels": labels, **arrays}
            save(place / "bad.npz", **chosen)
        return refused(*arguments)

    given = "--embeddings", "bad.npz"
    assert "--data is missing" in told()
    assert "no such file or folder" in told("nowhere", "--embeddings", good)
    assert "--checkpoint" in told(root, "--embeddings", good, "--checkpoint", good)
    assert "without --checkpoint and --part" in told(root, "--embeddings", good, "--part", "test")
    assert "above 0 and below 1" in told(root, "--embeddings", good, "--suspicion", 1)
    assert "bad.npz: 1 of 140 embeddings hold NaN" in told(
        *given, embeddings=np.where(np.arange(140)[:, None] == 7, np.nan, embeddings)
    )
    assert "bad.npz: 140 of 140 embeddings are all zeros" in told(*given, embeddings=embeddings * 0)
    assert "bad.npz: one person only" in told(*given, labels=labels * 0)
    texts = np.array([NAMES[label] for label in labels])
    assert "bad.npz: the labels are texts" in told(*given, labels=texts, paths=None)
    assert "bad.npz: 139 labels" in told(*given, labels=labels[:-1])
    assert "bad.npz: nobody has two pictures" in told(
        *given, labels=np.arange(140), names=None, paths=None
    )
    assert "bad.npz: holds no embedding" in told(
        *given, embeddings=embeddings[:0], labels=labels[:0], paths=[]
    )
    assert "bad.npz: has no paths" in told(root, *given, paths=None)
    assert "not one of its pictures" in told(root, *given, paths=[f"x/{at}" for at in range(140)])
    assert "--quarantine: needs the folder" in told("--embeddings", good, "--quarantine", "apart")
    assert "have 9 dimensions, those of the audited ones 16" in told(
        "--embeddings", good, "--against", "bad.npz", embeddings=embeddings[:, :9]
    )
    (place / "file").write_text("no folder")
    assert "is a file" in told("file", "--embeddings", good)
    assert "not a readable .npz" in told("--embeddings", "file")
    assert "--against" in told(root, "--embeddings", good, "--against", root)
    assert "lies inside" in told(root, "--embeddings", good, "--out", root / "out")
    for inside in (root / "apart", root, place):
        assert "--quarantine" in told(root, "--embeddings", good, "--quarantine", inside)
    assert not (place / "runs").exists()  # refused before anything was written
