"""What is wrong with single files and folders, from their facts alone."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from PIL import Image

from siamese.curation.checking.findings import Found, Kind
from siamese.curation.checking.inspection import FileFacts, Status
from siamese.curation.checking.picture_findings import Contents

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

Findings = dict[Kind, list[Found]]


def file_findings(facts: Mapping[str, FileFacts], *, min_side: int, max_aspect: float) -> Findings:
    """Findings about single files.

    Args:
        facts: by path.
        min_side: pixels of the shorter side.
        max_aspect: longer side over shorter side.
    """
    found: Findings = {}

    def tell(kind: Kind, path: str, detail: str = "") -> None:
        found.setdefault(kind, []).append(Found((path,), detail))

    for path, seen in facts.items():
        if seen.status != "usable":
            tell(_KIND_OF[seen.status], path, seen.detail)
            continue
        size = f"{seen.width} x {seen.height}"
        shorter, longer = sorted((seen.width, seen.height))
        if right_name(path, seen.format) != path:
            tell("wrong_extension", path, f"it is {seen.format}")
        if is_blank(seen):
            tell("blank", path, size)
        if shorter < min_side:
            tell("too_small", path, size)
        if longer > max_aspect * shorter:
            tell("odd_aspect", path, size)
        if seen.frames > 1:
            tell("animated", path, f"{seen.frames} pictures")
        if seen.orientation != 1:
            tell("rotated", path, f"orientation {seen.orientation}")
        mode = "16-bit or deeper" if seen.mode.startswith("I") else _MODES.get(seen.mode)
        if mode is not None:
            tell("colour_mode", path, mode)
    return found


def is_blank(facts: FileFacts) -> bool:
    """Whether a picture shows nothing, so that it resembles every other such picture."""
    return facts.contrast < _BLANK


def folder_findings(contents: Contents, facts: Mapping[str, FileFacts]) -> Findings:
    """Findings about folders and what lies in no place."""
    found: Findings = {
        "closed_folder": [Found((odd.path,), odd.detail) for odd in contents.closed],
        "linked_folder": [Found((odd.path,), odd.detail) for odd in contents.linked],
        "special": [Found((odd.path,), odd.detail) for odd in contents.special],
        "hidden": [Found((path,)) for path in contents.hidden],
        "outside": [Found((path,)) for path in contents.outside],
        "nested": [Found((nested.path,), _files(len(nested.files))) for nested in contents.nested],
    }
    closed = {odd.path for odd in contents.closed}
    for person, files in contents.people.items():
        usable = sum(facts[file.path].status == "usable" for file in files)
        if usable == 1:
            found.setdefault("one_picture", []).append(Found((person,)))
        if not usable and person not in closed:
            detail = f"{_files(len(files))}, none usable" if files else "empty"
            found.setdefault("no_pictures", []).append(Found((person,), detail))
    return found


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"


def right_name(path: str, picture_format: str) -> str:
    """The path with an ending that tells its content; unchanged where it does already.

    Args:
        path: of the picture.
        picture_format: Pillow's name of its file type.
    """
    known = _extensions()
    wanted = _SAME.get(picture_format, picture_format)
    ending = posixpath.splitext(path)[1]
    named = known.get(ending.lower())
    if named is not None and _SAME.get(named, named) == wanted:
        return path
    endings = [ending for ending, name in known.items() if name == picture_format]
    right = _COMMON.get(picture_format) or f".{picture_format.lower()}"
    if right not in known:
        if not endings:
            return path
        right = endings[0]
    # What is no picture's ending belongs to the name: "Ann 2.3" becomes "Ann 2.3.jpg".
    return (path[: -len(ending)] if named is not None else path) + right


def _extensions() -> dict[str, str]:
    Image.init()
    return Image.registered_extensions()
