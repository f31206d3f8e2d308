"""siamese-data split: disjoint people, merged folders, like numbers of pictures in all parts."""

import csv
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese.config import SplitListSettings
from siamese.curation.identity_split import (
    Pair,
    draw_parts,
    merge_folders,
    read_pairs_to_merge,
    write_split,
)
from siamese.data.split import people_wanted, split_by_identity
from siamese.data.split_lists import read_split
from siamese.errors import UserError
from siamese.report.embedding_files import save_embeddings
from siamese.report.embedding_sources import Embeddings

NAMES = tuple(f"p{number:02d}" for number in range(12))


@pytest.fixture
def faces(tmp_path: Path, draw_people: Callable[..., Path]) -> Path:
    """12 people with 3 pictures each; p00 has 5, p01 has 1."""
    root = draw_people(tmp_path / "faces", NAMES, images=3)
    for number in (3, 4):
        (root / "p00" / f"{number}.png").write_bytes((root / "p00" / "0.png").read_bytes())
    for number in (1, 2):
        (root / "p01" / f"{number}.png").unlink()
    return root


def split(faces: Path, out: str = "lists", **others: object) -> dict[str, dict[str, list[str]]]:
    """Writes lists beside the folder; for each part, person to paths."""
    given = {"validation": 3, "test": 2} | others
    place = faces.parent / out
    write_split(SplitListSettings(data=str(faces), out=str(place), **given))  # type: ignore[arg-type]
    return read(place)


def read(place: Path) -> dict[str, dict[str, list[str]]]:
    parts: dict[str, dict[str, list[str]]] = {}
    for file in sorted(place.glob("*.csv")):
        with open(file, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                parts.setdefault(file.stem, {}).setdefault(row["person"], []).append(row["path"])
    return parts


def merge_file(faces: Path, text: str) -> str:
    path = faces.parent / "merge.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


# Drawing

numbers = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 9), max_size=40)


@settings(deadline=None)
@given(numbers, st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**40))
def test_every_person_stands_in_one_part_and_the_numbers_are_exact(
    counts: dict[str, int], validation: int, test: int, seed: int
) -> None:
    if len(counts) - validation - test < 2:
        with pytest.raises(UserError, match=r"cannot give .* lower `validation` or `test`"):
            draw_parts(counts, validation, test, seed)
        return
    parts = draw_parts(counts, validation, test, seed)
    assert sorted(name for part in parts.values() for name in part) == sorted(counts)
    assert len(parts.get("validation", [])) == validation
    assert len(parts.get("test", [])) == test
    shuffled = dict(sorted(counts.items(), reverse=True))
    assert draw_parts(shuffled, validation, test, seed) == parts


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 200), min_size=20, max_size=150), st.integers(0, 100), st.data())
def test_parts_are_stratified_by_pictures_per_person(
    given_counts: list[int], seed: int, data: st.DataObject
) -> None:
    people = len(given_counts)
    wanted = data.draw(st.integers(2, people // 2))
    counts = {f"{at:03d}": count for at, count in enumerate(given_counts)}
    chosen = [counts[name] for name in draw_parts(counts, wanted, 0, seed)["validation"]]
    # One of each stretch: at no number of pictures do the shares of people differ by more.
    for level in sorted(set(given_counts)):
        share = sum(count <= level for count in given_counts) / people
        found = sum(count <= level for count in chosen) / wanted
        assert abs(found - share) <= 1 / wanted + 1 / people


def test_the_seed_decides_and_everybody_can_be_drawn() -> None:
    counts = {f"{at:02d}": at for at in range(1, 31)}
    draws = [draw_parts(counts, 6, 3, seed) for seed in range(60)]
    assert draws[7] == draw_parts(counts, 6, 3, 7)
    assert len({tuple(draw["validation"]) for draw in draws}) > 50
    for part in ("train", "validation", "test"):
        assert {name for draw in draws for name in draw[part]} == set(counts)


def test_a_plain_draw_is_less_alike() -> None:
    """What the strata are for: the mean number of pictures varies less from seed to seed."""
    rng = np.random.default_rng(0)
    counts = {f"{at:03d}": int(n) for at, n in enumerate(rng.lognormal(2, 1.2, 120)) if n >= 1}
    ours, plain = [], []
    for seed in range(80):
        parts = draw_parts(counts, 20, 0, seed)["validation"]
        ours.append(np.mean([counts[name] for name in parts]))
        parts = split_by_identity(tuple(counts), 20, 0, seed)["validation"]
        plain.append(np.mean([counts[name] for name in parts]))
    assert np.std(ours) < 0.5 * np.std(plain)


# Merging

folders = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 20), min_size=2)


@settings(deadline=None)
@given(folders, st.data())
def test_what_pairs_link_is_one_person(counts: dict[str, int], data: st.DataObject) -> None:
    names = st.sampled_from(sorted(counts))
    pairs = [(a, b) for a, b in data.draw(st.lists(st.tuples(names, names))) if a != b]
    people = merge_folders(counts, [Pair(*pair) for pair in pairs])
    graph = networkx.Graph(pairs)
    graph.add_nodes_from(counts)
    expected = {tuple(sorted(part)) for part in networkx.connected_components(graph)}
    assert {tuple(some) for some in people.values()} == expected
    for person, some in people.items():
        most = max(counts[name] for name in some)
        assert person == min(name for name in some if counts[name] == most)


def test_merged_people_stand_in_one_list_with_all_their_pictures(faces: Path) -> None:
    file = merge_file(faces, "score,second,first\n0.9,p01,p00\n0.8,p02,p01\n\n0.7,p05,p06\n")
    seen = set()
    for seed in range(6):
        parts = split(faces, f"lists{seed}", merge=file, seed=seed)
        people = {name: paths for part in parts.values() for name, paths in part.items()}
        assert len(people) == sum(map(len, parts.values())) == 9
        assert len(people["p00"]) == 5 + 1 + 3
        assert {path.split("/")[0] for path in people["p00"]} == {"p00", "p01", "p02"}
        assert len(people["p05"]) == 6
        paths = [path for some in people.values() for path in some]
        assert len(paths) == len(set(paths)) == 36
        seen |= {part for part, some in parts.items() if "p00" in some}
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: .* begins with the line first,second"),
        ("a,b\n", "line 1: 'a,b' has no column first"),
        ("first,second\np00,p99\n", r"line 2: no folder .* has the name 'p99'; did you mean"),
        ("first,second\np00,p00\n", "line 2: 'p00' twice"),
        ("first,second\n\np00\n", "line 3: 1 values, 2 are needed"),
        ('first,second\n"p00,p01\n', "line 2: not a CSV file"),
    ],
)
def test_a_merge_file_that_cannot_be_right_is_refused(faces: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"merge\.csv.*{message}"):
        split(faces, merge=merge_file(faces, text))
    assert not (faces.parent / "lists").exists()


def test_names_in_a_merge_file_are_found_in_any_form(tmp_path: Path) -> None:
    names = ["Chloe\u0301", "\udcff raw", "x"]
    file = tmp_path / "m.csv"
    file.write_bytes("first,second\r\nChloé,x\r\nx,\\udcff raw\r\n".encode("utf-8-sig"))
    pairs = read_pairs_to_merge(file, names)
    assert [(pair.first, pair.second) for pair in pairs] == [(names[0], "x"), ("x", names[1])]
    file.write_bytes(b"first,second\nx,\xff raw\n")
    assert read_pairs_to_merge(file, names) == [Pair("x", "\udcff raw")]


def test_the_finder_merges_where_a_model_is_given(
    faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(embeddings: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, float, float]]:
        asked.append((embeddings, labels))
        return [(3, 7, 0.9, 0.8), (2, 4, 0.3, 0.5)]

    stand_in = types.ModuleType("siamese.auditing.same_person")
    stand_in.find_same_people = find  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "siamese.auditing.same_person", stand_in)
    paths = [f"{name}/0.png" for name in NAMES] + ["gone/1.png"]
    vectors = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)
    people = Embeddings(vectors, np.arange(13), (*NAMES, "gone"), tuple(paths), "test", root=faces)
    save_embeddings(faces.parent / "e.npz", people)
    place = faces.parent / "lists"
    written = write_split(
        SplitListSettings(embeddings=str(faces.parent / "e.npz"), out=str(place), validation=3)
    )
    assert written.merged == {"p03": ["p03", "p07"]}
    assert asked[0][1].tolist() == list(range(12))
    assert np.allclose(asked[0][0] * np.linalg.norm(vectors[:12], axis=1)[:, None], vectors[:12])
    assert "24 pictures of" in written.text()  # those without an embedding
    assert "(probability 0.90 or more); it may be wrong" in written.text()
    people = {name: paths for part in read(place).values() for name, paths in part.items()}
    assert len(people["p03"]) == 6
    assert sum(map(len, people.values())) == 36
    told = json.loads((place / "split.json").read_text(encoding="utf-8"))
    assert told["merged_by"] == [{"first": "p03", "second": "p07", "probability": 0.9}]


def test_embeddings_without_a_folder_cannot_be_split(faces: Path) -> None:
    vectors = np.eye(12, dtype=np.float32)
    save_embeddings(faces.parent / "e.npz", Embeddings(vectors, np.arange(12), NAMES, None, "test"))
    with pytest.raises(UserError, match=r"e\.npz: has no paths"):
        write_split(SplitListSettings(embeddings=str(faces.parent / "e.npz")))


# The command


def test_the_command_writes_lists_that_training_reads(
    faces: Path, run_here: Callable[..., object]
) -> None:
    (faces / "p03" / "broken.png").write_bytes(b"")
    (faces / "stray.txt").write_text("x")
    before = sorted(faces.rglob("*"))
    file = merge_file(faces, "first,second\np00,p01\n")
    told = run_here("data", "split", "faces", "--merge", file, "--test", "0.2", cwd=faces.parent)
    assert told.returncode == 0, told.stderr
    assert "faces: 11 people, 36 pictures" in told.stdout
    assert "one person, p00: p00, p01" in told.stdout
    assert "2 left out" in told.stdout
    assert "siamese-train --data ./faces --split.lists runs/split-faces" in told.stdout
    place = faces.parent / "runs" / "split-faces"
    assert sorted(f.name for f in place.iterdir()) == [
        "split.json",
        "test.csv",
        "train.csv",
        "validation.csv",
    ]
    assert [f.name for f in place.parent.iterdir()] == ["split-faces"]
    found = read_split(place, faces)
    sizes = {part: len(folder.names) for part, folder in found.parts().items()}
    assert sizes == {"validation": people_wanted(11, 0.2), "test": 2, "train": 7}
    content = json.loads((place / "split.json").read_text(encoding="utf-8"))
    assert content["folder"] == str(faces)
    assert content["merged"] == {"p00": ["p00", "p01"]}
    for part, folder in found.parts().items():
        assert content["parts"][part]["names"] == list(folder.names)
        assert content["parts"][part]["pictures"] == len(folder.paths)
    assert sorted(faces.rglob("*")) == before


def test_lists_are_never_written_over(faces: Path) -> None:
    split(faces, seed=3)
    place = faces.parent / "lists"
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    given = {"data": str(faces), "out": str(place), "validation": 3, "test": 2}
    again = write_split(SplitListSettings(**given, seed=3))
    assert not again.new
    assert "unchanged: " in again.text()
    with pytest.raises(UserError, match=r"lists holds other files already .*another `out`"):
        write_split(SplitListSettings(**given, seed=4))
    with pytest.raises(UserError, match="holds other files already"):
        write_split(SplitListSettings(**{**given, "test": 0}, seed=3))
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
    (faces.parent / "mine").mkdir()
    (faces.parent / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"mine holds other files already \(notes\.txt\)"):
        split(faces, "mine")
    (faces.parent / "empty").mkdir()
    assert set(split(faces, "empty", test=0)) == {"train", "validation"}


def test_a_full_disk_leaves_nothing(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("siamese.curation.identity_split.write_json", full)
    before = sorted(faces.parent.iterdir())
    with pytest.raises(UserError, match="No space"):
        split(faces)
    assert sorted(faces.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--validation", "0"), "--validation 0.0: must be a share of the people below 1, or"),
        (("--validation", "1"), "--validation 1.0: must be"),
        (("--test", "2.5"), "--test 2.5: must be a share"),
        (("--test", "1"), "one test person only"),
        (("--validation", "11"), "12 people cannot give 11 for validation, 2 for test"),
        (("--out", "faces/lists"), "--out faces/lists: lies inside faces"),
        (("--merge", "gone.csv"), "--merge gone.csv: no such file"),
        (("--merge", "m.csv", "--checkpoint", "c.pt"), "--merge: give it without --checkpoint"),
        (("--embeddings", "e.npz", "--part", "test"), "--embeddings: give it without"),
        (("--sed", "1"), "did you mean"),
    ],
)
def test_bad_settings_are_one_line(
    faces: Path, run_here: Callable[..., object], arguments: tuple[str, ...], message: str
) -> None:
    told = run_here("data", "split", "faces", *arguments, cwd=faces.parent)
    assert told.returncode == 2
    assert message in told.stderr
    assert told.stderr.count("\n") == 1
    assert not (faces.parent / "runs").exists()


def test_a_part_without_a_genuine_pair_is_refused(
    tmp_path: Path, draw_people: Callable[..., Path]
) -> None:
    faces = draw_people(tmp_path / "faces", NAMES, images=1)
    with pytest.raises(UserError, match="nobody among the 7 train people has two pictures"):
        split(faces)


def test_one_name_in_two_unicode_forms_names_the_way_out(
    tmp_path: Path, draw_people: Callable[..., Path]
) -> None:
    faces = draw_people(tmp_path / "faces", ["Chloé", "Chloe\u0301", *NAMES], images=2)
    with pytest.raises(UserError, match=r"one name in two Unicode forms.*siamese-data check"):
        split(faces)
