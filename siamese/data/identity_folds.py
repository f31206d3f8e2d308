"""K-fold cross-validation by person: everybody is judged once, by a model that never saw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from siamese.data.split import people_wanted
from siamese.errors import UserError


@dataclass(frozen=True)
class Fold:
    """Who does what while one fold is judged; the three parts share nobody."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def parts(self) -> dict[str, tuple[str, ...]]:
        """The parts by the names that lists of a split have."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def fold_sizes(people: int, folds: int) -> list[int]:
    """How many people each fold judges: as equal as can be, the larger first."""
    return [len(part) for part in np.array_split(np.arange(people), folds)]


def pairs_of_people(people: int, folds: int) -> int:
    """Pairs of people that are compared: those of one fold, as each fold has a model of its own."""
    return sum(size * (size - 1) // 2 for size in fold_sizes(people, folds))


def folds_by_person(
    pictures: Mapping[str, int], folds: int, validation: float, seed: int
) -> list[Fold]:
    """Deal people out into folds.

    Those with one picture, who have no genuine pair, are dealt out last, so they spread evenly.

    Args:
        folds: K, at least 2.
        validation: share (below 1) or number of the people outside a fold who select the epoch.

    Raises:
        UserError: too few people for so many folds.
    """
    most = min(len(pictures) // 2, sum(count > 1 for count in pictures.values()))
    if folds > most:
        raise UserError(
            f"`folds` {folds}: every fold needs two people, one of them with two pictures; "
            + (f"these {len(pictures)} people give {most}" if most > 1 else "add people")
        )
    rng = np.random.default_rng(seed)
    shuffled = [sorted(pictures)[index] for index in rng.permutation(len(pictures))]
    dealt = sorted(shuffled, key=lambda name: pictures[name] < 2)
    divided = []
    for fold in range(folds):
        test = dealt[fold::folds]
        # Who has a pair of pictures is wanted where figures are made of them.
        others = [name for name in dealt if name not in set(test)]
        wanted = people_wanted(len(others), validation)
        if wanted < 2 or len(others) - wanted < 2:
            raise UserError(
                f"`folds` {folds}: {len(others)} people outside a fold cannot give {wanted} for "
                "validation and at least 2 for training; at least 2 of both are needed: add people"
            )
        start = fold * wanted % len(others)  # not the same people for all folds
        turned = others[start:] + others[:start]
        selecting = _with_pairs_first(turned, pictures)[:wanted]
        training = [name for name in others if name not in set(selecting)]
        parts = (training, selecting, test)
        divided.append(Fold(*(tuple(sorted(part)) for part in parts)))
    return divided


def _with_pairs_first(names: list[str], pictures: Mapping[str, int]) -> list[str]:
    """One person with two pictures or more to the front, the others as they stand."""
    first = next((index for index, name in enumerate(names) if pictures[name] > 1), 0)
    return [names[first], *names[:first], *names[first + 1 :]]
