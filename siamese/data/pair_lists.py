"""Lists of picture pairs with the truth about each, and the pictures that they name."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from siamese.data.folder import require_folder
from siamese.data.pair_forms import Form, read_form
from siamese.data.picture_names import FolderPictures, KnownPictures
from siamese.errors import UserError, first_few


@dataclass(frozen=True)
class PairList:
    """The listed pairs whose pictures both exist.

    Attributes:
        first: path of one picture of each pair, as it is there; in a folder relative to the root,
            with forward slashes.
        second: path of the other one.
        same: whether they show one person.
        fold: number of each pair's fold, from 0; None where the list knows none.
        missing: files that are named but not there, each once, in the list's order.
        skipped: number of pairs left out because of them.
        taken: what was taken as what, where the list has not its plain form or its pictures have
            other names; None where all is plain.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: tuple[bool, ...]
    fold: tuple[int, ...] | None
    missing: tuple[str, ...]
    skipped: int
    taken: str | None = None


def read_pairs(file: Path, root: Path) -> PairList:
    """Read a list of pairs of a folder's pictures; which kind it is, its first line tells.

    *LFW* (Huang et al. 2007): fields are separated by tabs (or spaces). ``10<TAB>300``: for each of
    10 folds, 300 genuine lines ``name<TAB>i<TAB>j``, then 300 impostor lines
    ``name1<TAB>i<TAB>name2<TAB>j``; a single number, ``500``: one fold. Picture 7 of Ann is
    ``Ann/Ann_0007.jpg``.

    *A table with a header*, separated by commas (RFC 4180), tabs, semicolons or spaces: two columns
    of pictures (``path_a,path_b``, ``img1,img2``, ... see ``pair_forms.PICTURES``), one of the
    truth (``same``, ``label``, ``issame``, ... see ``pair_forms.TRUTH``), perhaps one of the fold.

    *Lines* ``a b 1`` without a header, separated by spaces, tabs, commas or semicolons.

    The truth is 1, true, yes, same, or 0, -1, false, no, different; anything else is refused. All
    are UTF-8; lines that start with # and empty ones do not count. Pictures are found under other
    spellings, too; see :class:`siamese.data.picture_names.KnownPictures`.

    Raises:
        UserError: a file or folder that is not there; a malformed line, by its number; a name that
            several pictures fit; the same pair twice; no pair whose pictures exist.
    """
    file, root = Path(file), Path(root)
    require_folder(root)
    return _existing(file, read_form(file), FolderPictures(root), str(root), within=True)


def read_known_pairs(file: Path, paths: Sequence[str], origin: str) -> PairList:
    """The same for pictures that are known by their paths only.

    Args:
        paths: of all pictures, relative or absolute.

    Raises:
        UserError: as :func:`read_pairs`.
    """
    return _existing(file, read_form(file), KnownPictures(paths), origin, within=False)


def _existing(
    file: Path, form: Form, pictures: KnownPictures | FolderPictures, origin: str, *, within: bool
) -> PairList:
    """The pairs whose pictures are there."""
    matches: dict[str, str | None] = {}  # each name is looked up once
    names: dict[str, str] = {}  # by the picture
    spellings: dict[str, list[str]] = {}  # by how pictures of other names were found

    def find(where: str, name: str) -> str | None:
        if name not in matches:
            matches[name], way = pictures.find(name, where)
            path = matches[name]
            if path is not None and names.setdefault(path, name) != name:
                raise UserError(
                    f"{where}: {name!r} and {names[path]!r} would both be the picture {path!r}; "
                    "write paths that tell them apart"
                )
            if way and not (form.numbered and way == "with another suffix"):
                spellings.setdefault(way, []).append(f"{name} is {path}")
        return matches[name]

    pairs: list[tuple[str, str, bool, int]] = []
    lines: dict[tuple[str, ...], int] = {}
    for line, *both, same, fold in form.pairs:
        where = f"{file}, line {line}"
        one, other = (_plain(where, name, within=within) for name in both)
        if one == other:
            raise UserError(f"{where}: a picture paired with itself; name two different pictures")
        earlier = lines.setdefault(tuple(sorted((one, other))), line)
        if earlier != line:
            raise UserError(
                f"{where}: {one!r} and {other!r} are paired on line {earlier} already; leave one "
                "of the two lines out"
            )
        first, second = find(where, one), find(where, other)
        if first is not None and second is not None:
            pairs.append((first, second, same, fold))
    missing = tuple(name for name, path in matches.items() if path is None)
    if not pairs:
        raise UserError(
            f"{file}: none of its {len(form.pairs)} pairs has both pictures in {origin} (not "
            f"there: {first_few([repr(name) for name in missing])}); give the folder "
            "that its paths start from"
        )
    taken = [form.taken] if form.taken else []
    taken += [f"{len(some)} pictures found {way} ({some[0]})" for way, some in spellings.items()]
    first_paths, second_paths, truths, folds = zip(*pairs, strict=True)
    return PairList(
        first_paths,
        second_paths,
        truths,
        folds if form.folded else None,
        missing,
        len(form.pairs) - len(pairs),
        f"{file}: {'; '.join(taken)}" if taken else None,
    )


def _plain(where: str, path: str, *, within: bool) -> str:
    """A path in its plainest form, refused where it must lie within a folder and does not."""
    if not path.strip():
        raise UserError(f"{where}: an empty path; wanted: a picture's")
    plain, windows = posixpath.normpath(path), PureWindowsPath(path)
    if within and (plain.startswith("/") or windows.drive or windows.root):
        raise UserError(f"{where}: {path!r} is absolute; write it relative to the root")
    if within and (plain.split("/")[0] == ".." or ("\\" in path and ".." in windows.parts)):
        raise UserError(f"{where}: {path!r} leaves the root; name a picture inside it")
    return plain
