"""What a crop did, and how one goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from siamese.cropping.crop_record import Entry
from siamese.cropping.crop_work import SMALLER
from siamese.curation.shell import command_line, path_word
from siamese.data.folder import LeftOut
from siamese.errors import first_few
from siamese.files.shown import counted


@dataclass(frozen=True)
class Cropped:
    """A folder of faces.

    Attributes:
        out: the folder.
        table: the list of everything.
        looked_at: photographs that were looked at now.
        entries: what became of each photograph, now or earlier.
        left_out: what is no photograph, or lies where none is looked for.
        changed: photographs that have changed since their faces were written.
        gone: faces that were written earlier and are no longer there.
    """

    out: Path
    table: Path
    looked_at: int
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def faces(self) -> int:
        """Faces that were written, now or earlier."""
        return sum(len(entry.written()) for entry in self.entries)

    def people(self) -> set[str]:
        """Those of whom a face was written."""
        return _people(entry for entry in self.entries if entry.written())

    def several(self) -> list[Entry]:
        """Photographs in a person's folder with several faces, of which some were written."""
        return [
            entry
            for entry in self.entries
            if "/" in entry.photograph and entry.written() and len(entry.faces) > 1
        ]

    def text(self) -> str:
        """What was done, what to look at, and the next command."""
        known = len(self.entries) - self.looked_at
        there = f" ({known} of them were done)" if known else ""
        people = self.people()
        faces = counted(self.faces(), "face")
        of_people = f" of {counted(len(people), 'person').replace('persons', 'people')}"
        lines = [
            f"{self.out}: {faces}{of_people if people else ''} from "
            f"{counted(len(self.entries), 'photograph')}{there}",
            *self._without(),
        ]
        if several := self.several():
            largest = any(face.status == SMALLER for entry in several for face in entry.faces)
            lines.append(
                f"{counted(len(several), 'photograph')} of people with more than one face: "
                f"{'the largest was taken, and' if largest else 'all were taken, and some'} may be "
                f"somebody else's: {first_few([entry.photograph for entry in several])}"
            )
        for paths, words in (
            (self.changed, "photographs have changed since; their faces stay as they are"),
            (self.gone, "faces were taken away since, and are not made again"),
        ):
            if paths:
                lines.append(f"{len(paths)} {words}: {first_few(paths)}")
        lines.append(f"every photograph and face: {self.table}")
        return "\n".join([*lines, *self._next()])

    def _without(self) -> Iterator[str]:
        """Lines about what gave no face."""
        without = [entry for entry in self.entries if not entry.written()]
        if without:
            details = ", ".join(
                f"{number} {status}"
                for status, number in Counter(e.status for e in without).most_common()
            )
            some = first_few([entry.photograph for entry in without])
            yield f"{counted(len(without), 'photograph')} without a face ({details}): {some}"
            if lost := sorted(_people(without) - self.people()):
                yield f"people of whom no face was found: {len(lost)}: {first_few(lost)}"
        if self.left_out:
            some = first_few([item.path for item in self.left_out])
            yield f"{counted(len(self.left_out), 'thing')} not looked at: {some}"

    def _next(self) -> Iterator[str]:
        written = [entry for entry in self.entries if entry.written()]
        if not written:
            return
        if nameless := [entry for entry in written if "/" not in entry.photograph]:
            yield (
                f"note: {counted(len(nameless), 'photograph')} in nobody's folder, whose faces lie "
                f"beside each other in {self.out}: move each into a folder of its person, "
                f"{self.out / 'NAME'}"
            )
        train = command_line("siamese-train", "--data", path_word(self.out))
        yield f"{'then' if nameless else 'next'}: {train}"


def _people(entries: Iterable[Entry]) -> set[str]:
    """The people in whose folders photographs lie."""
    return {e.photograph.partition("/")[0] for e in entries if "/" in e.photograph}
