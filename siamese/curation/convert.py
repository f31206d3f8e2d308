"""A face folder becomes a folder of upright RGB pictures of one size and one file type."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO, TypeGuard

from filelock import FileLock, Timeout
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from siamese.config import ConvertFit, ConvertSettings, PictureFormat
from siamese.data.cache_files import stamp_of
from siamese.data.decode import DecodeError, decode
from siamese.data.folder import FaceFolder, LeftOut, require_folder, scan_folder
from siamese.data.loaders import loader_options
from siamese.data.picture_names import without_suffix
from siamese.data.transforms import Preprocess
from siamese.errors import UserError, first_few
from siamese.files.fields import parse_json
from siamese.files.journal import open_journal
from siamese.files.places import require_apart, require_no_way_out
from siamese.files.writing import CannotWrite, write_csv
from siamese.processors import processors

_ENDING: dict[PictureFormat, str] = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}
# Hidden files, which neither a scan nor torchvision's ImageFolder takes for anything.
_RECORD, _LOCK, _LIST = ".convert.jsonl", ".convert.lock", ".convert-left-out.csv"
_PATIENCE = 10  # seconds; the processes of a killed call end within five
_BATCH = 8  # pictures that a process hands over at a time
_TEMPORARY = ".convert-"
_PLACE = re.compile(r"(?!\.\.?/)[^/\0]+/(?!\.\.?\Z)[^/\0]+")  # of a picture: PERSON/NAME


@dataclass(frozen=True)
class Converted:
    """What a conversion did; all paths in it are relative.

    Attributes:
        out: the folder.
        people: how many people's pictures are in it.
        written: pictures that were written now.
        kept: pictures that an earlier call had written.
        left_out: what is not converted and why.
        foreign: files in the folder that no call wrote, or that were changed since.
        orphaned: pictures of earlier calls whose source is gone.
        listed: the CSV of what is left out; None where there is nothing.
    """

    out: Path
    people: int
    written: int
    kept: int
    left_out: tuple[LeftOut, ...]
    foreign: tuple[str, ...]
    orphaned: tuple[str, ...]
    listed: Path | None

    def text(self) -> str:
        """What was done, for the screen."""
        there = f" ({self.kept} of them were there)" if self.kept else ""
        lines = [
            f"{self.written + self.kept} pictures of {self.people} people in {self.out}{there}"
        ]
        if self.left_out:
            reasons = Counter(item.reason.partition(" (")[0] for item in self.left_out)
            details = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            some = first_few([item.path for item in self.left_out])
            lines.append(f"{len(self.left_out)} left out ({details}): {some}")
            lines.append(f"all of them, with the reasons: {self.listed}")
        for paths, words in (
            (self.foreign, "not of this conversion, or changed since"),
            (self.orphaned, "of pictures that are gone from the source"),
        ):
            if paths:
                lines.append(f"{len(paths)} files are {words}; kept: {first_few(paths)}")
        return "\n".join(lines)


class _Record:
    """What was written: a JSON line with the settings, then one per picture, only ever added.

    A line is result, source, and the stamps of source and result
    (:func:`siamese.data.cache_files.stamp_of`).

    Attributes:
        newest: by result the rest of its last line.
        written: every result with its stamp, of now or of earlier.
    """

    def __init__(self, file: TextIO, lines: Iterable[list[str]]):
        self._file = file
        self.newest: dict[str, tuple[str, ...]] = {}
        self.written: set[tuple[str, str]] = set()
        for line in lines:
            self._note(*line)

    def _note(self, target: str, *rest: str) -> None:
        self.newest[target] = rest
        self.written.add((target, rest[-1]))

    def add(self, *line: str) -> None:
        """Note a result that is about to get its place."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._note(*line)


@contextmanager
def _open_record(path: Path, way: Mapping[str, object]) -> Iterator[_Record]:
    """Read a folder's record, or begin one; lines that were cut off count for nothing.

    Raises:
        UserError: the folder was converted in another way; the record is damaged.
    """
    with open_journal(path, json.dumps(way), partial(_require_same, path, way)) as (file, lines):
        yield _Record(file, [line for line in map(_parsed, lines) if _is_result(line)])


def _require_same(path: Path, way: Mapping[str, object], head: str) -> None:
    before = _parsed(head)
    if not isinstance(before, dict):
        raise UserError(
            f"{path}: is damaged; remove it (the files beside it then stay as they are), or name "
            "another `out`"
        )
    for name, value in way.items():
        if before.get(name) != value:
            raise UserError(
                f"`{name}` {value}: {path.parent} was converted with {before.get(name)}; name "
                "another `out`"
            )


def _parsed(line: str) -> object:
    with suppress(ValueError):
        return parse_json(line)
    return None


def _is_result(line: object) -> TypeGuard[list[str]]:
    """Whether this names pictures in a person's folder, as all sources and results are."""
    return (
        isinstance(line, list)
        and len(line) == 4
        and all(isinstance(value, str) for value in line)
        and all(_PLACE.fullmatch(path) for path in line[:2])
    )


def convert_folder(settings: ConvertSettings) -> Converted:
    """Convert the pictures that :func:`scan_folder` uses; the source is never changed.

    A second call does what is missing and what has a changed source. A file is there whole or
    not at all, and no file of somebody else is ever written over.

    Raises:
        UserError: unusable folders, in or out; no picture could be converted; the disk is full.
    """
    data, out = Path(str(settings.data)), Path(str(settings.out))
    require_folder(data)
    require_apart(data, out)
    way = {name: getattr(settings, name) for name in ("size", "fit", "format", "quality")}
    if settings.format == "png":
        way["quality"] = None
    way = {"data": os.path.realpath(data), **way}
    if os.path.exists(out) and not os.path.isdir(out):
        raise UserError(f"`out` {out}: is a file; name a folder")
    folder = scan_folder(data)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / _LOCK)
        with lock.acquire(timeout=_PATIENCE), _open_record(out / _RECORD, way) as record:
            return _Conversion(folder, out, settings, record).run()
    except Timeout:
        raise UserError(f"`out` {out}: another conversion is writing it; wait for it") from None
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"`out` {out}: cannot be written ({why}); what is there is kept, the same command goes "
            "on with it"
        ) from None


def convert_picture(path: Path, size: int, fit: ConvertFit) -> Image.Image:
    """Decode a picture upright and RGB, and resize it.

    ``squash`` and ``crop`` give size x size pixels, the very ones that training at this size
    makes of the original; small pictures are enlarged. ``shorter`` keeps the aspect and only ever
    makes smaller. Large JPEGs are decoded reduced, to no less than twice the size.

    Raises:
        DecodeError: it cannot be decoded.
    """
    picture = decode(path, size)
    if fit == "shorter":
        shorter = min(picture.size)
        if shorter > size:
            width, height = (max(1, round(side * size / shorter)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    else:
        picture = functional.to_pil_image(Preprocess(size, fit)(picture))
    picture.info.clear()  # else comments and profiles of the source are saved with it
    return picture


@dataclass(frozen=True)
class _Made:
    """A converted picture that waits beside its place, or the reason why there is none."""

    source: str
    target: str
    stamp: str  # of the source
    temporary: Path
    reason: str = ""
    trouble: OSError | None = None  # of the disk; ends the whole call


class _Jobs(Dataset[_Made]):
    """Converts pictures; the loader's processes share the work."""

    def __init__(
        self, data: Path, out: Path, settings: ConvertSettings, jobs: Sequence[tuple[str, str]]
    ):
        self.data, self.out, self.settings, self.jobs = data, out, settings, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> _Made:
        (source, target), given = self.jobs[index], self.settings
        place = (self.out / target).with_name(f"{_TEMPORARY}{index}.tmp")
        # Before the decoding: a source that changes meanwhile is then converted again next time.
        made = _Made(source, target, stamp_of(self.data / source) or "", place)
        try:
            picture = convert_picture(self.data / source, given.size, given.fit)
        except DecodeError as error:
            return replace(made, reason=str(error).removeprefix(f"{self.data / source}: "))
        options = {} if given.format == "png" else {"quality": given.quality}
        try:
            place.parent.mkdir(exist_ok=True)
            picture.save(place, given.format, **options)
        except Exception as error:  # whatever the writers of Pillow stumble over
            place.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None:
                return replace(made, trouble=OSError(error.errno, os.strerror(error.errno)))
            reason = f"cannot be saved as {given.format} ({type(error).__name__}: {error})"
            return replace(made, reason=reason)
        return made


@dataclass(frozen=True)
class _Conversion:
    folder: FaceFolder
    out: Path
    settings: ConvertSettings
    record: _Record

    def run(self) -> Converted:
        require_no_way_out(self.out, self.folder.names)
        self._sweep()
        left_out = list(self.folder.left_out)
        known = {rest[0]: target for target, rest in self.record.newest.items()}
        targets = target_names(self.folder.paths, self.settings.format, known)
        jobs = []
        kept: set[str] = set()
        compared = tqdm(
            targets.items(), "comparing", unit="img", disable=None, delay=1, leave=False
        )
        for source, target in compared:
            state = self._state(source, target)
            if state == "there":
                kept.add(source)
            elif state == "free":
                jobs.append((source, target))
            else:
                left_out.append(LeftOut(source, f"its place is taken (by {target})"))
        try:
            written = set(self._convert(jobs, left_out))
        finally:
            self._sweep()
            self._drop_empty(source for source, _ in jobs)
        if not written and not kept:
            raise UserError(
                f"{self.folder.root}: not one of its {len(targets)} pictures can be converted; "
                f"the first: {first_few([f'{x.path}: {x.reason}' for x in left_out][:1])}"
            )
        foreign, orphaned = self._others(targets)
        left_out.sort(key=lambda item: item.path)
        return Converted(
            self.out,
            len({path.partition("/")[0] for path in written | kept}),
            len(written),
            len(kept),
            tuple(left_out),
            foreign,
            orphaned,
            self._list(left_out),
        )

    def _state(self, source: str, target: str) -> str:
        """``there``, ``free`` (missing or outdated) or ``taken``."""
        path = self.out / target
        if not os.path.lexists(path):
            return "free"
        stamp = stamp_of(path)
        if stamp is None or os.path.islink(path) or (target, stamp) not in self.record.written:
            return "taken"
        fresh = self.record.newest[target] == (source, stamp_of(self.folder.root / source), stamp)
        return "there" if fresh else "free"

    def _convert(self, jobs: list[tuple[str, str]], left_out: list[LeftOut]) -> Iterator[str]:
        """Convert; gives the sources of the pictures that are in place."""
        workers = self.settings.workers
        wanted = min(processors() if workers is None else workers, -(-len(jobs) // _BATCH))
        loader = DataLoader(
            _Jobs(self.folder.root, self.out, self.settings, jobs),
            batch_size=_BATCH,
            **loader_options(wanted, False, collate=list),
        )
        with tqdm(total=len(jobs), desc="converting", unit="img", disable=None) as bar:
            for made in (made for batch in loader for made in batch):
                bar.update()
                if made.trouble is not None:
                    raise made.trouble
                reason = made.reason or self._put(made)
                if reason:
                    left_out.append(LeftOut(made.source, reason))
                else:
                    yield made.source

    def _put(self, made: _Made) -> str:
        """Move a picture to its place; the reason where that cannot be."""
        path = self.out / made.target
        # Somebody may have come meanwhile; and some disks take A.jpg for a.jpg.
        if self._state(made.source, made.target) == "taken":
            made.temporary.unlink()
            return f"its place is taken (by {made.target})"
        stamp = stamp_of(made.temporary)
        assert stamp is not None, "it was just written"
        # First the record: a file that is there and not in it would pass for somebody else's.
        self.record.add(made.target, made.source, made.stamp, stamp)
        try:
            os.replace(made.temporary, path)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
                raise
            made.temporary.unlink()
            return f"its new name is not possible there ({error.strerror})"
        return ""

    def _sweep(self) -> None:
        """Remove what a stopped call left beside the pictures."""
        for person in self.folder.names:
            for left in (self.out / person).glob(f"{_TEMPORARY}*.tmp"):
                left.unlink()

    def _drop_empty(self, sources: Iterable[str]) -> None:
        """Remove the folders of people of whom there is no picture."""
        for person in {source.partition("/")[0] for source in sources}:
            with suppress(OSError):
                (self.out / person).rmdir()

    def _others(self, targets: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Files in the folder that are no results of this source: foreign and orphaned ones."""
        foreign: list[str] = []
        orphaned: list[str] = []
        ours = {
            target for source, target in targets.items() if self._state(source, target) == "there"
        }
        ours |= {_RECORD, _LOCK, _LIST}
        wanted = set(targets.values())
        for file in self.out.rglob("*"):
            path = file.relative_to(self.out).as_posix()
            if path in ours or file.is_dir():
                continue
            if (path, stamp_of(file)) not in self.record.written:
                foreign.append(path)
            elif path not in wanted:  # else its source has changed and cannot be converted now
                orphaned.append(path)
        return tuple(sorted(foreign)), tuple(sorted(orphaned))

    def _list(self, left_out: Sequence[LeftOut]) -> Path | None:
        """Write the CSV beside the folder; an earlier one that no longer holds is written over."""
        place = Path(os.path.abspath(self.out))
        path = place.with_name(f"{place.name}-left-out.csv")
        if not left_out and not path.exists():
            return None
        rows = [(item.path, item.reason) for item in left_out]
        try:
            write_csv(path, ("path", "reason"), rows)
        except CannotWrite:  # only the folder itself can be written
            path = place / _LIST
            write_csv(path, ("path", "reason"), rows)
        return path if left_out else None


def target_names(
    paths: Sequence[str], file_type: PictureFormat, known: Mapping[str, str]
) -> dict[str, str]:
    """Where each picture goes: ``a/b.png`` to ``a/b.jpg``.

    Of pictures that differ in the ending only, the one that has the new ending already keeps its
    name, else the first; the others keep their ending before the new one (``a/b.png.jpg``).

    Args:
        paths: the sources, relative, with forward slashes.
        file_type: gives the new ending.
        known: targets of earlier calls by source, which stay.

    Returns:
        targets by source, all different.
    """
    ending = _ENDING[file_type]
    targets = {path: known[path] for path in paths if path in known}
    taken = {*known.values()}
    unchanged = [path for path in paths if without_suffix(path) + ending == path]
    for path in dict.fromkeys([*unchanged, *paths]):
        if path in targets:
            continue
        target, number = without_suffix(path) + ending, 1
        while target in taken:
            extra = "" if number == 1 else f"-{number}"
            target, number = f"{path}{extra}{ending}", number + 1
        targets[path] = target
        taken.add(target)
    return {path: targets[path] for path in paths}
