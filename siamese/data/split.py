"""Split a face folder by identity: training, validation and test share no person."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from siamese.data.folder import FaceFolder, shared_names
from siamese.errors import UserError, first_few


@dataclass(frozen=True)
class Split:
    """Three folders (or parts of one) without a common identity; ``test`` may be None.

    ``listed``: lists name every picture; a person's may lie in several folders, and what else
    lies there takes no part. ``cleaned``: so does what an audit called wrong among the training
    pictures.
    """

    train: FaceFolder
    validation: FaceFolder
    test: FaceFolder | None
    listed: bool = False
    cleaned: bool = False

    def parts(self) -> dict[str, FaceFolder]:
        """The parts that exist, by name."""
        parts = {"train": self.train, "validation": self.validation}
        return parts if self.test is None else {**parts, "test": self.test}


def split_by_identity(
    names: tuple[str, ...], validation: float, test: float, seed: int
) -> dict[str, list[str]]:
    """Draw which identities go where.

    Args:
        validation: share of the identities (below 1) or their number (1 or more).

    Returns:
        ``{"train": [...], "validation": [...], "test": [...]}``, each sorted.

    Raises:
        UserError: too few identities for the wanted parts.
    """
    wanted = [people_wanted(len(names), part) for part in (validation, test)]
    if len(names) - sum(wanted) < 2:
        raise UserError(
            f"{len(names)} people cannot give {wanted[0]} for validation, {wanted[1]} for test and "
            "at least 2 for training: add people, lower `split.validation` or `split.test`, or "
            "give others with `split.validation_data` DIR"
        )
    shuffled = [sorted(names)[i] for i in np.random.default_rng(seed).permutation(len(names))]
    cuts = [0, wanted[0], sum(wanted), len(names)]
    parts = [sorted(shuffled[a:b]) for a, b in pairwise(cuts)]
    return dict(zip(("validation", "test", "train"), parts, strict=True))


def people_wanted(people: int, part: float) -> int:
    """Number of identities; a share above 0 gives at least the 2 that an impostor pair needs."""
    if part >= 1:
        return int(part)
    return max(2, round(part * people)) if part > 0 else 0


def make_split(
    folder: FaceFolder,
    *,
    validation: float,
    test: float,
    seed: int,
    train_people: int | None = None,
    validation_folder: FaceFolder | None = None,
    test_folder: FaceFolder | None = None,
) -> Split:
    """Split ``folder`` by identity; folders of one's own take the place of the drawn parts.

    Args:
        train_people: how many of those that are left train; None: all.

    Raises:
        UserError: one identity only; fewer than ``train_people`` are left; a part without a genuine
            pair; a person in two folders.
    """
    if len(folder.names) < 2:
        raise UserError(
            f"{folder.root}: one person only ({folder.names[0]}); verification is learnt from "
            "several people, one folder each"
        )
    _refuse_shared(folder, validation_folder, "validation")
    _refuse_shared(folder, test_folder, "test")
    if validation_folder and test_folder:
        _refuse_shared(validation_folder, test_folder, "test")
    drawn = split_by_identity(
        folder.names,
        0 if validation_folder else validation,
        0 if test_folder else test,
        seed,
    )
    parts = Split(
        train=folder.only(_some(drawn["train"], train_people, seed)),
        validation=validation_folder or folder.only(drawn["validation"]),
        test=test_folder or (folder.only(drawn["test"]) if drawn["test"] else None),
    )
    if not validation_folder and not drawn["validation"]:
        raise UserError(
            "`split.validation` 0: unseen people are needed to tell which epoch is best; "
            "set a share, or `split.validation_data` DIR"
        )
    for name, part in parts.parts().items():
        require_pairs(name, part, "add pictures or change `split.seed`")
    return parts


def _some(names: list[str], wanted: int | None, seed: int) -> list[str]:
    """So many of the names, in order; those of a smaller number are among those of a larger.

    Raises:
        UserError: there are fewer.
    """
    if wanted is None:
        return names
    if wanted > len(names):
        raise UserError(
            f"`split.train_people` {wanted}: {len(names)} people are left for training; lower it, "
            "or leave it out for all of them"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    return sorted(names[i] for i in order[:wanted])


def require_pairs(name: str, part: FaceFolder, fix: str) -> None:
    """Refuse a part in which nothing can be verified.

    Args:
        fix: what to do where nobody has two pictures.

    Raises:
        UserError: no genuine pair or no impostor pair.
    """
    if max(part.counts().values()) < 2:
        raise UserError(
            f"{part.root}: nobody among the {len(part.names)} {name} people has two pictures, so "
            f"there is no genuine pair; {fix}"
        )
    if len(part.names) < 2:
        raise UserError(
            f"{part.root}: one {name} person only, so there is no impostor pair; add people"
        )


def _refuse_shared(folder: FaceFolder, other: FaceFolder | None, name: str) -> None:
    if other is None:
        return
    shared = shared_names(other.names, folder.names)
    if shared:
        raise UserError(
            f"{other.root}: {len(shared)} people are in {folder.root}, too ({first_few(shared)}); "
            f"the {name} folder must hold other people: move or remove them"
        )
