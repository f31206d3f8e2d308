"""The list of everything in a folder of photographs: a row per face, one for each without any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from siamese.cropping.crop_record import Entry
from siamese.data.folder import LeftOut

_PLACES = ("eye1", "eye2", "nose", "mouth1", "mouth2")
COLUMNS = (
    "photograph", "status", "faces", "face", "score", "x", "y", "width", "height",
    *(f"{place}_{axis}" for place in _PLACES for axis in "xy"), "note",
)  # fmt: skip
"""``faces``: how many were found in the photograph; ``face``: path of the one that was written;
then its box and landmarks, in pixels of the upright photograph."""
_NOT_YET, _LEFT_OUT = "not yet", "left out"
_NUMBERS = len(COLUMNS) - 5  # score, box, landmarks


def rows(
    photographs: Sequence[str], entries: Mapping[str, Entry], left_out: Sequence[LeftOut]
) -> Iterator[tuple[object, ...]]:
    """The cells of the table, in the order of the photographs; what is no photograph comes last."""
    empty = ("",) * _NUMBERS
    for photograph in photographs:
        entry = entries.get(photograph)
        if entry is None or not entry.placed:
            yield (photograph, _NOT_YET, "", "", *empty, "")
        elif not entry.faces:
            yield (photograph, entry.status, 0, "", *empty, entry.detail)
        else:
            for face in entry.faces:
                numbers = (face.score, *face.box, *face.landmarks)
                count = len(entry.faces)
                yield (photograph, face.status, count, face.path, *numbers, entry.detail)
    for item in left_out:
        yield (item.path, _LEFT_OUT, "", "", *empty, item.reason)
