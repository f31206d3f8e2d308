"""What can be wrong with a face folder without a model, and which cases of it there are."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from siamese.curation.contents import Contents
from siamese.curation.findings_page import Severity
from siamese.curation.inspection import FileFacts, Status
from siamese.files.shown import counted

Kind = str  # a key of ABOUT


@dataclass(frozen=True)
class About:
    """A kind of finding: how bad it is, its title, what it means and what is done about it."""

    severity: Severity
    title: str
    meaning: str


@dataclass(frozen=True)
class Case:
    """A file or folder, or those that belong together; relative to the root."""

    paths: tuple[str, ...]
    detail: str = ""

    def text(self, most: int | None = None) -> str:
        """One line, with so many paths at most."""
        names = list(self.paths[:most])
        names += ["..."] if len(names) < len(self.paths) else []
        return " = ".join(names) + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Finding:
    """All cases of one kind.

    Attributes:
        kind: a key of ``ABOUT``; names the plan's file, too.
        cases: the worst first, where there is an order.
        command: mends them, ready for a shell; None: nothing but a look helps.
        plan: what the command carries out.
        moves: number of files and folders that the plan moves.
    """

    kind: Kind
    cases: tuple[Case, ...]
    command: str | None = None
    plan: Path | None = None
    moves: int = 0

    @property
    def about(self) -> About:
        """The kind's severity and words."""
        return ABOUT[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "kind": self.kind,
            **asdict(self.about),
            "count": len(self.cases),
            "command": self.command,
            "plan": None if self.plan is None else str(self.plan),
            "moves": self.moves,
            "found": [{"paths": list(case.paths), "detail": case.detail} for case in self.cases],
        }


_OUT = "The plan takes them out"
# The worst first; within a plan, what an earlier kind moves is left alone.
ABOUT: dict[Kind, About] = {
    "unreadable": About(
        "error", "unreadable or truncated pictures",
        f"Pillow cannot decode them to the end; training would leave them out or stop. {_OUT}.",
    ),
    "zero_bytes": About("error", "files of zero bytes", f"Nothing is in them. {_OUT}."),
    "bomb": About(
        "error", "decompression bombs",
        f"More pixels than Pillow holds for safe; they were not decoded. {_OUT}.",
    ),
    "failed": About(
        "error", "files that crash or hang the reader",
        f"A process that read them died or never came back. {_OUT}; look at them one by one.",
    ),
    "closed_folder": About(
        "error", "folders and files that may not be read", "The permissions forbid it.",
    ),
    "linked_folder": About(
        "error", "the same folder under a second name",
        "A link makes one person into two, or leads back into the folder; its pictures are not "
        "looked at twice. The plan takes the link out, not what it leads to.",
    ),
    "twin_folders": About(
        "error", "folders of one name",
        "Their names differ only in Unicode form, letter case or spaces: one person who could end "
        "up in training and in test. The plan moves the smaller folders' files into the largest.",
    ),
    "copies_across": About(
        "error", "the same file in several people's folders",
        "At most one of the people can be the right one, and the file tells not which: the plan "
        "takes every copy out. (siamese-data audit tells by a model where they belong.)",
    ),
    "shared_pictures": About(
        "warning", "people who share half of their pictures",
        "Two folders with the same files in them are often one person under two names. Look at "
        "them; the plan moves the smaller folders' files into the largest.",
    ),
    "similar_names": About(
        "warning", "folders of nearly one name",
        "Their names are equal but for full-width letters and other look-alikes. Look at them; "
        "the plan moves the smaller folders' files into the largest.",
    ),
    "near_across": About(
        "warning", "nearly the same picture in several people's folders",
        "Resized, recompressed or retouched copies: one of the labels is wrong, or a test person "
        "was seen in training. Look at them; the plan takes all of them out.",
    ),
    "copies_within": About(
        "warning", "the same file several times in a person's folder",
        "A pair of two copies is no evidence of anything; it makes figures look better than they "
        "are. The plan keeps one of each.",
    ),
    "near_within": About(
        "warning", "nearly the same picture several times in a person's folder",
        "Such pairs are too easy: they inflate validation. The plan keeps the largest, and of what "
        "it takes out each is near to one that stays.",
    ),
    "blank": About(
        "warning", "pictures of one colour", f"Nothing is to be seen on them. {_OUT}.",
    ),
    "wrong_extension": About(
        "warning", "file names that do not say what is in them",
        "Training goes by the content, other programs by the name. The plan renames them.",
    ),
    "too_small": About(
        "warning", "pictures that are too small", f"Little of a face is left. {_OUT}.",
    ),
    "odd_aspect": About(
        "warning", "pictures that are too long or too wide",
        f"Training squeezes them into a square. {_OUT}.",
    ),
    "animated": About(
        "warning", "animated files, or files of several pictures",
        "Training takes the first picture only. The command writes such a folder of still ones.",
    ),
    "nested": About(
        "warning", "folders inside a person's folder",
        "Training leaves them out, which is right where they were set aside on purpose "
        "(same_face/). The plan moves their files up into the person's folder.",
    ),
    "outside": About(
        "warning", "files beside the people's folders",
        f"Nobody knows whose they are; training leaves them out. {_OUT}.",
    ),
    "special": About(
        "warning", "things that are no files", f"Broken links, pipes, devices. {_OUT}.",
    ),
    "no_pictures": About(
        "warning", "people without a usable picture", f"{_OUT}, as whole folders.",
    ),
    "rotated": About(
        "note", "pictures that only EXIF turns upright",
        "Training turns them; other programs may not. The command writes a folder of upright ones.",
    ),
    "colour_mode": About(
        "note", "pictures that are not 8-bit colour",
        "Greyscale, CMYK, 16-bit: training converts them each time. The command writes a folder of "
        "RGB pictures.",
    ),
    "one_picture": About(
        "note", "people with one picture",
        "No pair of theirs can be formed; they serve as strangers only. "
        f"{_OUT}, as whole folders.",
    ),
    "not_picture": About(
        "note", "files that are no pictures", f"Training leaves them out. {_OUT}.",
    ),
    "hidden": About(
        "note", "hidden files and folders", f"Training leaves them out. {_OUT}.",
    ),
}  # fmt: skip

Cases = dict[Kind, list[Case]]
_KIND_OF: dict[Status, Kind] = {
    "unreadable": "unreadable",
    "zero bytes": "zero_bytes",
    "bomb": "bomb",
    "failed": "failed",
    "closed": "closed_folder",
    "not a picture": "not_picture",
}
_BLANK = 1.5  # grey levels: what JPEG makes of one colour stays below
_COMMON = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "PPM": ".ppm"}
# Pillow's names for what shares its endings.
_SAME = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}
_MODES = {"1": "black and white", "L": "greyscale", "LA": "greyscale", "La": "greyscale",
          "CMYK": "CMYK", "F": "32-bit float"}  # fmt: skip


def file_findings(facts: Mapping[str, FileFacts], *, min_side: int, max_aspect: float) -> Cases:
    """Findings about single files, from their facts by path.

    Args:
        facts: by path.
        min_side: pixels that the shorter side should have.
        max_aspect: longer side over shorter side.
    """
    cases: Cases = {}

    def add(kind: Kind, path: str, detail: str = "") -> None:
        cases.setdefault(kind, []).append(Case((path,), detail))

    for path, seen in facts.items():
        if seen.status != "usable":
            add(_KIND_OF[seen.status], path, seen.detail)
            continue
        size = f"{seen.width} x {seen.height}"
        shorter, longer = sorted((seen.width, seen.height))
        if right_name(path, seen.format) != path:
            add("wrong_extension", path, f"it is {seen.format}")
        if is_blank(seen):
            add("blank", path, size)
        if shorter < min_side:
            add("too_small", path, size)
        if longer > max_aspect * shorter:
            add("odd_aspect", path, size)
        if seen.frames > 1:
            add("animated", path, f"{seen.frames} pictures")
        if seen.orientation != 1:
            add("rotated", path, f"orientation {seen.orientation}")
        mode = "16-bit or deeper" if seen.mode.startswith("I") else _MODES.get(seen.mode)
        if mode is not None:
            add("colour_mode", path, mode)
    return cases


def is_blank(facts: FileFacts) -> bool:
    """Whether a picture shows nothing, so that it resembles every other such picture."""
    return facts.contrast < _BLANK


def folder_findings(contents: Contents, facts: Mapping[str, FileFacts]) -> Cases:
    """Findings about folders and what lies in no place."""
    cases: Cases = {
        "closed_folder": [Case((odd.path,), odd.detail) for odd in contents.closed],
        "linked_folder": [Case((odd.path,), odd.detail) for odd in contents.linked],
        "special": [Case((odd.path,), odd.detail) for odd in contents.special],
        "hidden": [Case((path,)) for path in contents.hidden],
        "outside": [Case((path,)) for path in contents.outside],
        "nested": [Case((one.path,), counted(len(one.files), "file")) for one in contents.nested],
    }
    closed = {odd.path for odd in contents.closed}
    for person, usable in contents.usable(facts).items():
        if usable == 1:
            cases.setdefault("one_picture", []).append(Case((person,)))
        if not usable and person not in closed:
            files = len(contents.people[person])
            detail = f"{counted(files, 'file')}, none usable" if files else "empty"
            cases.setdefault("no_pictures", []).append(Case((person,), detail))
    return cases


def right_name(path: str, picture_format: str) -> str:
    """A picture's path with an ending that tells its content; unchanged where it does already.

    ``picture_format`` is Pillow's name of its file type.
    """
    Image.init()
    known = Image.registered_extensions()
    ending = posixpath.splitext(path)[1]
    named = known.get(ending.lower())
    if named is not None and _SAME.get(named, named) == _SAME.get(picture_format, picture_format):
        return path
    endings = [ending for ending, name in known.items() if name == picture_format]
    right = _COMMON.get(picture_format) or f".{picture_format.lower()}"
    if right not in known:
        if not endings:
            return path
        right = endings[0]
    # What is no picture's ending belongs to the name: "Ann 2.3" becomes "Ann 2.3.jpg".
    return (path[: -len(ending)] if named is not None else path) + right


@dataclass(frozen=True)
class Twins:
    """Two folders or more that one name was written for.

    ``sure`` is False where only look-alike characters make them equal (full-width letters).
    """

    names: tuple[str, ...]
    sure: bool


def find_twins(names: Sequence[str]) -> list[Twins]:
    """Names that are equal but for Unicode form, letter case, spaces or width of letters."""
    alike: dict[str, dict[str, list[str]]] = {}
    for name in sorted(set(names)):
        key = name_key(name)
        alike.setdefault(name_key(key, "NFKD"), {}).setdefault(key, []).append(name)
    twins = []
    for groups in alike.values():
        twins += [Twins(tuple(group), True) for group in groups.values() if len(group) > 1]
        if len(groups) > 1:
            twins.append(Twins(tuple(sorted(chain(*groups.values()))), False))
    return sorted(twins, key=lambda one: (not one.sure, one.names))


def name_key(name: str, form: Literal["NFD", "NFKD"] = "NFD") -> str:
    """Equal for names that differ in Unicode form, letter case or spaces only.

    Canonical caseless matching of the Unicode standard (section 3.13), after every space and
    every invisible formatting character is taken out, until nothing changes any more.
    """
    while True:
        key = "".join(c for c in name if not c.isspace() and unicodedata.category(c) != "Cf")
        key = unicodedata.normalize(form, unicodedata.normalize("NFD", key).casefold())
        if key == name:
            return key
        name = key


def spelled(name: str) -> str:
    """A name in which spaces, combining marks and invisible characters can be seen."""
    return "".join(_spelled(character) for character in name)


def _spelled(character: str) -> str:
    if character == " ":
        return "\N{OPEN BOX}"
    hidden = character.isspace() or unicodedata.category(character) in ("Cf", "Mn", "Mc", "Me")
    return f"<U+{ord(character):04X}>" if hidden else character
