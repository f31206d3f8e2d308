#!/usr/bin/env python
"""A face folder with label noise, for experiments: some pictures stand in a wrong person's folder.

OUT/faces holds links to the pictures of FACES (copies where links fail), OUT/planted.csv which of
them are wrong: path, person (whose folder it is in), owner (whom it shows), source. The wrong ones
are drawn as scripts/bench_audit.py draws them. With --only-people LISTS/train.csv, a list that
siamese-data split wrote, the others' folders stay clean, so that they can validate and test:

  siamese-data split FACES --out LISTS
  python scripts/plant_wrong_pictures.py FACES OUT --share 0.1 --only-people LISTS/train.csv
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from bench_audit import moved

from siamese.data.folder import FaceFolder, scan_folder
from siamese.errors import UserError, first_few
from siamese.files.csv_tables import read_table
from siamese.files.places import is_inside
from siamese.files.writing import write_csv


def plant(faces: Path, out: Path, share: float, seed: int, only: Path | None) -> tuple[int, int]:
    """Write the folder and the table; the number of wrong pictures and of all that may be wrong.

    Raises:
        UserError: no faces; OUT exists, or lies inside of FACES; a share that is none; people who
            are not there, or fewer than two.
    """
    if not 0 < share < 1:
        raise UserError(f"--share {share}: must be above 0 and below 1")
    folder = scan_folder(faces)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists; give a folder that does not")
    if is_inside(out, faces):
        raise UserError(f"{out}: lies inside of {faces}; give a folder beside it")
    chosen = _chosen(folder, only)
    own = np.asarray(folder.labels)
    eligible = np.flatnonzero(np.isin(own, chosen))
    places = np.searchsorted(chosen, own[eligible])
    given = own.copy()
    given[eligible] = np.asarray(chosen)[moved(places, seed, share=share, heavy=0)]
    rows = []
    for at, path in enumerate(folder.paths):
        target = path
        if given[at] != own[at]:
            target = f"{folder.names[given[at]]}/planted-{at}{Path(path).suffix}"
            names = (folder.names[given[at]], folder.names[own[at]])
            rows.append((target, *names, path))
        _link(out / "faces" / target, faces / path)
    header = ("path", "person", "owner", "source")
    write_csv(out / "planted.csv", header, rows, errors="surrogateescape", exact=True)
    return len(rows), len(eligible)


def _chosen(folder: FaceFolder, only: Path | None) -> list[int]:
    """Labels, rising, of the people among whom pictures change places."""
    if only is None:
        people = set(folder.names)
    else:
        people = {person for _, (person,) in read_table(only, ("person",))}
        if missing := sorted(people - set(folder.names)):
            raise UserError(
                f"{only}: {len(missing)} of its people have no folder in {folder.root}: "
                f"{first_few(missing)}"
            )
    if len(people) < 2:
        raise UserError(f"{only or folder.root}: names fewer than two people")
    return [label for label, name in enumerate(folder.names) if name in people]


def _link(link: Path, target: Path) -> None:
    if link.exists():
        raise UserError(f"{link}: is there twice; rename the picture in FACES")
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(target.resolve())
    except (OSError, NotImplementedError):  # no links on this disk
        shutil.copyfile(target, link)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("faces", type=Path, metavar="FACES")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--share", type=float, default=0.1, help="of the pictures that are wrong")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-people", type=Path, help="CSV with a column person")
    given = parser.parse_args()
    try:
        wrong, of = plant(given.faces, given.out, given.share, given.seed, given.only_people)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{wrong} of {of} pictures are in a wrong person's folder: {given.out / 'planted.csv'}")


if __name__ == "__main__":
    main()
