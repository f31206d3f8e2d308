"""Cross-validation by person."""

import re
from itertools import combinations
from math import comb
from pathlib import Path

import pytest

from siamese.data.identity_folds import fold_sizes, folds_by_person, pairs_of_people
from siamese.errors import UserError

PICTURES = {f"人{number:02d}": 1 if number % 4 == 0 else 5 for number in range(14)}


def test_everybody_is_judged_once_by_a_model_that_never_saw_them() -> None:
    folds = folds_by_person(PICTURES, 5, 0.2, seed=0)
    assert sorted(name for fold in folds for name in fold.test) == sorted(PICTURES)
    for fold in folds:
        for one, other in combinations(fold.parts().values(), 2):
            assert not set(one) & set(other)
        assert {name for part in fold.parts().values() for name in part} == set(PICTURES)
        for part in fold.parts().values():
            assert len(part) >= 2
            assert any(PICTURES[name] > 1 for name in part)


def test_folds_select_by_different_people() -> None:
    folds = folds_by_person(PICTURES, 5, 0.2, seed=0)
    assert len({fold.validation for fold in folds}) == 5


def test_the_draw_depends_on_people_and_seed_alone() -> None:
    backwards = dict(reversed(PICTURES.items()))
    assert folds_by_person(PICTURES, 4, 2, 1) == folds_by_person(backwards, 4, 2, 1)
    assert folds_by_person(PICTURES, 4, 2, 1) != folds_by_person(PICTURES, 4, 2, 2)


@pytest.mark.parametrize("people", [4, 12, 13, 61])
@pytest.mark.parametrize("folds", [2, 5])
def test_pairs_of_people_are_counted_within_folds(people: int, folds: int) -> None:
    sizes = fold_sizes(people, folds)
    assert sum(sizes) == people
    assert max(sizes) - min(sizes) <= 1
    fold_of = [at for at, size in enumerate(sizes) for _ in range(size)]
    assert pairs_of_people(people, folds) == sum(a == b for a, b in combinations(fold_of, 2))


def test_the_table_of_people_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "siamese" / "report" / "README.md").read_text(
        encoding="utf-8"
    )
    rows = re.findall(r"^\| (0\.\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", guide, re.M)
    assert len(rows) == 5
    for row in rows:
        fmr, judged, drawn, five, two = float(row[0]), *map(int, row[1:])
        for enough, pairs in (
            (judged, lambda people: comb(people, 2)),
            (drawn, lambda people: comb(max(2, round(people / 5)), 2)),
            (five, lambda people: pairs_of_people(people, 5)),
            (two, lambda people: pairs_of_people(people, 2)),
        ):
            assert 3 / pairs(enough) <= fmr < 3 / pairs(enough - 1)


@pytest.mark.parametrize(
    ("pictures", "folds", "told"),
    [
        (PICTURES, 8, "these 14 people give 7"),
        (dict.fromkeys("abcdef", 1), 2, "add people"),
        (dict.fromkeys("abcd", 3), 2, "2 people outside a fold cannot give 2 for validation"),
    ],
)
def test_too_few_people_are_told(pictures: dict[str, int], folds: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        folds_by_person(pictures, folds, 0.2, seed=0)
