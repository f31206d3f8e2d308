"""Splitting by identity: nobody stands in two parts."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese.data.folder import FaceFolder
from siamese.data.split import make_split, split_by_identity
from siamese.errors import UserError


def people(*counts: int, prefix: str = "p", root: str = "faces") -> FaceFolder:
    """A folder that is only described: person i has counts[i] pictures."""
    names = tuple(f"{prefix}{i:02d}" for i in range(len(counts)))
    labels = tuple(i for i, count in enumerate(counts) for _ in range(count))
    paths = tuple(f"{names[label]}/{at}.jpg" for at, label in enumerate(labels))
    return FaceFolder(Path(root), names, paths, labels, ())


def named(*names: str, root: str = "own") -> FaceFolder:
    paths = tuple(f"{name}/{i}.jpg" for name in names for i in range(2))
    labels = tuple(label for label in range(len(names)) for _ in range(2))
    return FaceFolder(Path(root), names, paths, labels, ())


def split(folder: FaceFolder, validation: float = 0.2, test: float = 0, seed: int = 0, **own):
    return make_split(folder, validation=validation, test=test, seed=seed, **own)


parts = st.one_of(st.floats(0, 0.6), st.integers(1, 20))


@settings(deadline=None)
@given(st.sets(st.text(min_size=1, max_size=4), max_size=30), parts, parts, st.integers(0, 2**40))
def test_every_person_stands_in_exactly_one_part(names, validation, test, seed):
    wanted = (validation, test)
    try:
        parts = split_by_identity(tuple(names), validation, test, seed)
    except UserError:
        needed = [w if w >= 1 else max(2, w * len(names) + 0.5) * (w > 0) for w in wanted]
        assert sum(needed) > len(names) - 2
        return
    everybody = [name for part in parts.values() for name in part]
    assert sorted(everybody) == sorted(names)
    assert len(parts["train"]) >= 2
    for part, share in zip((parts["validation"], parts["test"]), wanted, strict=True):
        if share >= 1:
            assert len(part) == share
        elif share > 0:
            assert abs(len(part) - share * len(names)) <= 0.5 or len(part) == 2
        else:
            assert not part


@settings(deadline=None)
@given(st.permutations([f"p{i}" for i in range(12)]), st.integers(0, 100))
def test_the_order_of_the_names_does_not_matter(names, seed):
    ordered = tuple(sorted(names))
    assert split_by_identity(tuple(names), 3, 3, seed) == split_by_identity(ordered, 3, 3, seed)


def test_the_seed_decides():
    names = tuple(f"p{i}" for i in range(20))
    splits = [split_by_identity(names, 4, 4, seed) for seed in range(5)]
    assert split_by_identity(names, 4, 4, 3) == splits[3]
    assert len({tuple(parts["validation"]) for parts in splits}) == 5


@pytest.mark.parametrize(
    ("count", "validation", "test", "expected"),
    [
        (64, 10, 10, (44, 10, 10)),
        (64, 0.2, 0, (51, 13, 0)),
        (10, 0.2, 0.2, (6, 2, 2)),
        (10, 0.01, 0, (8, 2, 0)),
        (6, 0.3, 0, (4, 2, 0)),
        (5, 1, 1, (3, 1, 1)),
        (7, 0.49, 0, (4, 3, 0)),
    ],
)
def test_shares_and_counts(count, validation, test, expected):
    names = tuple(f"p{i}" for i in range(count))
    parts = split_by_identity(names, validation, test, 0)
    assert tuple(len(parts[name]) for name in ("train", "validation", "test")) == expected


@pytest.mark.parametrize(("count", "validation", "test"), [(3, 0.5, 0), (10, 9, 0), (10, 5, 4)])
def test_too_few_people_are_refused_with_the_numbers(count, validation, test):
    with pytest.raises(UserError, match=rf"{count} people cannot give .*lower `split\.validation`"):
        split_by_identity(tuple(f"p{i}" for i in range(count)), validation, test, 0)


def test_the_parts_hold_the_pictures_of_their_people():
    folder = people(*range(2, 12))
    parts = split(folder, 3, 2).parts()
    assert list(parts) == ["train", "validation", "test"]
    assert [len(part.names) for part in parts.values()] == [5, 3, 2]
    paths = [path for part in parts.values() for path in part.paths]
    assert sorted(paths) == sorted(folder.paths)
    for part in parts.values():
        assert all(
            part.names[label] == path.split("/")[0]
            for path, label in zip(part.paths, part.labels, strict=True)
        )


def test_fewer_training_people_are_some_of_more_and_the_others_stay():
    folder = people(*[3] * 20)
    everybody = split(folder, 4, 4)
    some = [split(folder, 4, 4, train_people=number) for number in (2, 5, 12)]
    assert [len(one.train.names) for one in some] == [2, 5, 12]
    names = [set(one.train.names) for one in (*some, everybody)]
    assert names[0] < names[1] < names[2] == names[3]
    for one in some:
        assert (one.validation, one.test) == (everybody.validation, everybody.test)
        assert len(one.train.paths) == 3 * len(one.train.names)
    drawn = {tuple(split(folder, 4, 4, seed, train_people=3).train.names) for seed in range(9)}
    assert len(drawn) > 5
    with pytest.raises(UserError, match=r"`split\.train_people` 13: 12 people are left"):
        split(folder, 4, 4, train_people=13)


def test_no_test_part_unless_it_is_asked_for():
    assert split(people(*[3] * 10)).test is None


def test_a_validation_folder_takes_the_place_of_the_share():
    own = people(2, 2, prefix="v", root="own")
    parts = split(people(*[3] * 10), 0.5, validation_folder=own)
    assert parts.validation is own
    assert len(parts.train.names) == 10


def test_a_test_folder_leaves_the_validation_share():
    own = people(2, 2, prefix="t", root="own")
    parts = split(people(*[3] * 10), 0.2, test_folder=own)
    assert parts.test is own
    assert (len(parts.train.names), len(parts.validation.names)) == (8, 2)


def test_both_folders_of_ones_own():
    validation, test = people(2, 2, prefix="v", root="v"), people(2, 2, prefix="t", root="t")
    parts = split(people(3, 3), 0.2, validation_folder=validation, test_folder=test)
    assert (parts.validation, parts.test) == (validation, test)
    assert len(parts.train.names) == 2


@pytest.mark.parametrize("which", ["validation_folder", "test_folder"])
def test_a_person_shared_with_the_training_folder_is_refused(which):
    own = named("new", "p03")
    with pytest.raises(UserError, match=r"own: 1 people are in faces, too \(p03\)"):
        split(people(*[3] * 10), **{which: own})


def test_a_person_shared_by_validation_and_test_is_refused():
    own = {"validation_folder": named("a", "b", root="v"), "test_folder": named("b", "c", root="t")}
    with pytest.raises(UserError, match=r"t: 1 people are in v, too \(b\)"):
        split(people(*[3] * 10), **own)


@pytest.mark.parametrize("name", ["Chloé", "ガク", "각"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_shared_person_is_found_across_unicode_forms(name, forms):
    here, there = (unicodedata.normalize(form, name) for form in forms)
    assert here != there
    with pytest.raises(UserError, match="1 people are in faces, too"):
        split(named("a", "b", here, root="faces"), validation_folder=named("c", there))


def test_one_person_is_refused():
    with pytest.raises(UserError, match=r"faces: one person only \(p00\)"):
        split(people(9))


def test_people_with_one_picture_each_are_refused():
    with pytest.raises(UserError, match="no genuine pair"):
        split(people(*[1] * 10))


@pytest.mark.parametrize("which", ["validation_folder", "test_folder"])
def test_a_folder_of_ones_own_needs_a_genuine_pair(which):
    own = people(1, 1, prefix="v", root="own")
    with pytest.raises(UserError, match="own: nobody among the 2"):
        split(people(*[3] * 10), **{which: own})


def test_one_validation_person_is_refused():
    with pytest.raises(UserError, match="one validation person only, so there is no impostor pair"):
        split(people(*[3] * 10), validation=1)


def test_no_validation_people_are_refused():
    with pytest.raises(UserError, match=r"`split\.validation` 0: unseen people are needed"):
        split(people(*[3] * 10), validation=0)
