"""Lists of picture pairs with the truth about each, and the pictures that they name."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from siamese.data.folder import require_folder
from siamese.data.pair_forms import Form, Written, read_form
from siamese.data.picture_names import FolderPictures, KnownPictures, Match, SeveralMatch
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
    truth (``same``, ``label``, ``issame``, ... see ``pair_forms.TRUTH``), perhaps one of the fold
    (``fold``).

    *Lines* ``a b 1`` without a header, separated by spaces, tabs, commas or semicolons.

    The truth is 1, true, yes, same, or 0, -1, false, no, different; anything else is refused. All
    are UTF-8; lines that start with # and empty ones do not count. Pictures are found under other
    spellings, too; see :class:`siamese.data.picture_names.KnownPictures`.

    Args:
        file: the list.
        root: the folder that its pictures are in.

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
        file: the list.
        paths: of all pictures, relative or absolute.
        origin: where they come from, for messages.

    Raises:
        UserError: as :func:`read_pairs`.
    """
    return _existing(file, read_form(file), KnownPictures(paths), origin, within=False)


class _Finder:
    """Looks every name up once."""

    def __init__(self, pictures: KnownPictures | FolderPictures):
        self._pictures = pictures
        self._matches: dict[str, Match | None] = {}
        self._names: dict[str, str] = {}  # by the path that was found

    def find(self, where: str, name: str) -> Match | None:
        """The picture of a plain name; None where there is none.

        Raises:
            UserError: several pictures fit; another name has the same picture.
        """
        if name not in self._matches:
            try:
                match = self._pictures.find(name)
            except SeveralMatch as error:
                raise UserError(
                    f"{where}: {error}; write the path of the one that is meant"
                ) from None
            if match is not None and self._names.setdefault(match.path, name) != name:
                raise UserError(
                    f"{where}: {name!r} and {self._names[match.path]!r} would both be the picture "
                    f"{match.path!r}; write paths that tell them apart"
                )
            self._matches[name] = match
        return self._matches[name]

    def has(self, name: str) -> bool:
        """Whether there is a picture of a plain name; nothing is remembered."""
        try:
            return self._pictures.find(name) is not None
        except SeveralMatch:
            return True

    def missing(self) -> tuple[str, ...]:
        """Names without a picture, in the order in which they were looked up."""
        return tuple(name for name, match in self._matches.items() if match is None)

    def other_spellings(self, *, numbered: bool) -> str | None:
        """How pictures were found that have other names, with an example each."""
        usual = {"exact", "with another suffix"} if numbered else {"exact"}
        found: dict[str, list[str]] = {}
        for name, match in self._matches.items():
            if match is not None and match.way not in usual:
                found.setdefault(match.way, []).append(f"{name} is {match.path}")
        by_number = sorted(found.items(), key=lambda item: -len(item[1]))
        return "; ".join(f"{len(x)} pictures found {way} ({x[0]})" for way, x in by_number) or None


def _existing(
    file: Path, form: Form, pictures: KnownPictures | FolderPictures, origin: str, *, within: bool
) -> PairList:
    """The pairs whose pictures are there."""
    finder = _Finder(pictures)
    pairs: list[tuple[str, str, bool, int]] = []
    lines: dict[tuple[str, ...], int] = {}
    for written in form.pairs:
        where = f"{file}, line {written.line}"
        one, other = _names(where, written, finder, within=within)
        if one == other:
            raise UserError(f"{where}: a picture paired with itself; name two different pictures")
        earlier = lines.setdefault(tuple(sorted((one, other))), written.line)
        if earlier != written.line:
            raise UserError(
                f"{where}: {one!r} and {other!r} are paired on line {earlier} already; leave one "
                "of the two lines out"
            )
        first, second = finder.find(where, one), finder.find(where, other)
        if first is not None and second is not None:
            pairs.append((first.path, second.path, written.same, written.fold))
    if not pairs:
        raise UserError(
            f"{file}: none of its {len(form.pairs)} pairs has both pictures in {origin} (not "
            f"there: {first_few([repr(name) for name in finder.missing()])}); give the folder "
            "that its paths start from"
        )
    one_paths, other_paths, same, fold = zip(*pairs, strict=True)
    spellings = finder.other_spellings(numbered=form.numbered)
    taken = [part for part in (form.taken, spellings) if part]
    return PairList(
        first=one_paths,
        second=other_paths,
        same=same,
        fold=fold if form.folded else None,
        missing=finder.missing(),
        skipped=len(form.pairs) - len(pairs),
        taken=f"{file}: {'; '.join(taken)}" if taken else None,
    )


def _names(where: str, written: Written, finder: _Finder, *, within: bool) -> tuple[str, str]:
    """Both names; where spaces leave open where the first ends, the one way with both pictures."""
    choices = [
        (_plain(where, one, within=within), _plain(where, other, within=within))
        for one, other in written.names
    ]
    if len(choices) == 1:
        return choices[0]
    there = [names for names in choices if all(map(finder.has, names))]
    if len(there) != 1:
        raise UserError(
            f"{where}: {len(choices) + 2} field(s), wanted are 3; separate them by tabs, or put "
            "names that hold spaces into quotes"
        )
    return there[0]


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
