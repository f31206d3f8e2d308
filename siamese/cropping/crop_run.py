"""A folder of photographs becomes a folder of aligned faces, with a list of everything."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from siamese.config import CropSettings
from siamese.cropping.crop_names import bases, face_path
from siamese.cropping.crop_record import Entry, Record, open_record
from siamese.cropping.crop_table import COLUMNS, rows
from siamese.cropping.crop_work import (
    NOT_READ,
    WRITTEN,
    CroppedFace,
    CropWork,
    Looked,
    remove,
    settings_of,
    sweep,
)
from siamese.cropping.cropped import Cropped
from siamese.cropping.detection import Detector
from siamese.cropping.detector_file import read_detector
from siamese.curation.contents import Contents, walk_folder
from siamese.curation.inspection import PATIENCE, work_watched
from siamese.data.cache_files import stamp_of
from siamese.data.folder import LeftOut
from siamese.errors import UserError
from siamese.files.places import require_apart, require_no_way_out
from siamese.files.writing import CannotWrite, write_csv
from siamese.processors import processors

TABLE = "crop.csv"
# Hidden files, which neither a scan nor torchvision's ImageFolder takes for anything.
_RECORD, _LOCK = ".crop.jsonl", ".crop.lock"
_LOCK_PATIENCE = 10  # seconds; the processes of a killed call end within five
_CHUNK = 4  # photographs handed to a process together
_SIZE = 112  # pixels; what ArcFace's models see
_GOES_ON = "the same command goes on with what is left"
_PLAIN_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def crop_folder(settings: CropSettings, detector: Detector | None = None) -> Cropped:
    """Find and align the faces of photographs; those are never changed.

    A second call, after whatever ended the first, does what is missing: photographs that came
    since, and those that could not be opened. A face is there whole or not at all, and no file is
    ever written over. Faces that somebody took away since stay away.

    Args:
        settings: of siamese-data crop.
        detector: finds the faces, instead of the one that ``settings.detector`` names.

    Raises:
        UserError: unusable folders; a detector that is none; other settings than those that the
            folder was made with; the disk is full.
    """
    data, out = Path(str(settings.data)), Path(str(settings.out))
    contents = walk_folder(data)
    require_apart(data, out)
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"`out` {out}: is a file; name a folder")
    workers = processors() if settings.workers is None else settings.workers
    name = "given"
    if detector is None:
        detector, note = read_detector(
            Path(str(settings.detector)), settings.detect_at, settings.score, workers
        )
        name = hashlib.sha256(detector.network).hexdigest()
        if note:  # before the work: it may be a mistake
            print(f"note: {note}", file=sys.stderr)
    work = CropWork(
        data, out, detector, _side_of(settings), settings.margin, settings.detect_at,
        settings.faces, settings.min_side, settings.format, settings.quality,
    )  # fmt: skip
    way = {
        "data": os.path.realpath(data),
        "detector": name,
        "score": settings.score,
        **settings_of(work),
    }
    with _opened(out, way) as record:
        return _Crop(contents, work, record, workers).run()


def _side_of(settings: CropSettings) -> int:
    """Side of the faces' pictures in pixels."""
    if settings.size is not None:
        return settings.size
    if settings.checkpoint is None:
        return _SIZE
    from siamese.models.checkpoint import find_best, read_checkpoint
    from siamese.models.loading import spec_of

    path = find_best(settings.checkpoint, Path("checkpoints"))
    return spec_of(read_checkpoint(path, keys=())).size


@contextmanager
def _opened(out: Path, way: dict[str, object]) -> Iterator[Record]:
    """The record of a folder that nobody else writes; what the disk refuses is told in one line."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(out / TABLE) and not os.path.lexists(out / _RECORD):
            raise UserError(f"{out / TABLE}: is no list of these faces; move it away")
        lock = FileLock(out / _LOCK)
        with lock.acquire(timeout=_LOCK_PATIENCE), open_record(out / _RECORD, way) as record:
            yield record
    except Timeout:
        raise UserError(f"`out` {out}: another crop is writing it; wait for it") from None
    except CannotWrite:
        raise
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or error
        raise CannotWrite(f"`out` {out}: cannot be written ({why}); {_GOES_ON}") from None


@dataclass(frozen=True)
class _Crop:
    contents: Contents
    work: CropWork
    record: Record
    workers: int

    def run(self) -> Cropped:
        out = self.work.out
        people = [person for person, files in self.contents.people.items() if files]
        if TABLE in people:
            raise UserError(f"{self.work.root / TABLE}: rename this folder; the list is called so")
        require_no_way_out(out, people)
        sweep(out)
        photographs = [*self.contents.outside, *(file.path for file in self.contents.files())]
        if not photographs:
            raise UserError(f"{self.work.root}: no photograph in it")
        stamps = {path: stamp_of(self.work.root / path) for path in photographs}
        done = {
            path: entry
            for path, entry in self.record.entries.items()
            if path in stamps and entry.is_done(stamps[path])
        }
        jobs = [path for path in photographs if path not in done]
        changed = sorted(path for path, entry in done.items() if entry.stamp != stamps[path])
        left_out = _left_out(self.contents)
        try:
            self._list(photographs, left_out)
            self._look(jobs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_GOES_ON) from None
        finally:
            sweep(out)
            self._list(photographs, left_out)
        entries = [self.record.entries[path] for path in photographs]
        return Cropped(
            out,
            out / TABLE,
            len(jobs),
            tuple(entries),
            tuple(left_out),
            tuple(changed),
            self._gone(entries),
        )

    def _look(self, jobs: list[str]) -> None:
        known = {path: entry.base for path, entry in self.record.entries.items()}
        named = bases(self.work.out, jobs, known)
        looked = work_watched(
            jobs,
            self.work,
            partial(Looked, "", NOT_READ),
            workers=self.workers,
            patience=PATIENCE,
            chunk=_CHUNK,
        )
        shown = tqdm(looked, "cropping", len(jobs), unit="img", disable=None)
        try:
            for position, found in shown:
                if found.trouble:
                    raise CannotWrite(
                        f"`out` {self.work.out}: cannot be written ({found.trouble}); {_GOES_ON}"
                    )
                self._place(jobs[position], named[jobs[position]], found)
        finally:
            looked.close()
            shown.close()

    def _place(self, photograph: str, base: str, found: Looked) -> None:
        """Bring the faces of a photograph to their places; noted before and after."""
        ours = self._ours(photograph)
        faces = [
            replace(face, path=face_path(photograph, base, number, self.work.format))
            if face.temporary
            else face
            for number, face in enumerate(found.faces)
        ]
        entry = Entry(photograph, found.stamp, found.status, base, found.detail)
        if any(face.temporary for face in faces):
            self.record.add(replace(entry, faces=tuple(map(_noted, faces))))
        placed = [self._put(face, ours) if face.temporary else face for face in faces]
        statuses = [face.status for face in placed]
        if found.faces and WRITTEN not in statuses:
            entry = replace(entry, status=statuses[0])
        self.record.add(replace(entry, faces=tuple(map(_noted, placed)), placed=True))

    def _ours(self, photograph: str) -> dict[str, str]:
        """Places and stamps of faces that a call was about to put when it was ended."""
        entry = self.record.entries.get(photograph)
        if entry is None or entry.placed:
            return {}
        return {face.path: face.stamp for face in entry.faces if face.path}

    def _put(self, face: CroppedFace, ours: dict[str, str]) -> CroppedFace:
        waiting, place = self.work.out / face.temporary, self.work.out / face.path
        try:
            place.parent.mkdir(exist_ok=True)
            mine = face.path in ours and stamp_of(place) == ours[face.path]
            if mine and not os.path.islink(place):
                os.replace(waiting, place)  # of the same photograph, by a call that was killed
            else:
                _move_new(waiting, place)
        except FileExistsError:
            remove(self.work.out, [face])
            return replace(face, status="its place is taken")
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
                raise
            remove(self.work.out, [face])
            return replace(face, status=f"its name is not possible there ({error.strerror})")
        return face

    def _gone(self, entries: Iterable[Entry]) -> tuple[str, ...]:
        """Faces that were written and that somebody has taken away since."""
        paths = (face.path for entry in entries for face in entry.written())
        return tuple(path for path in paths if not os.path.lexists(self.work.out / path))

    def _list(self, photographs: list[str], left_out: list[LeftOut]) -> None:
        table = rows(photographs, self.record.entries, left_out)
        write_csv(self.work.out / TABLE, COLUMNS, table)


def _noted(face: CroppedFace) -> CroppedFace:
    """A face as the record keeps it."""
    path, stamp = (face.path, face.stamp) if face.status == WRITTEN else ("", "")
    return replace(face, temporary="", path=path, stamp=stamp)


def _move_new(waiting: Path, place: Path) -> None:
    """Move a file to a place where nothing is; FileExistsError where something is."""
    try:
        os.link(waiting, place)
    except OSError as error:
        if error.errno not in _PLAIN_LINKS:
            raise
        if os.path.lexists(place):  # a disk without links knows no better
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        os.rename(waiting, place)
    else:
        waiting.unlink()


def _left_out(contents: Contents) -> list[LeftOut]:
    """What lies in the folder and is no photograph, or in no place where one is looked for."""
    odd = [*contents.linked, *contents.special, *contents.closed]
    nested = [path for folder in contents.nested for path in folder.files]
    return sorted(
        [
            *(LeftOut(one.path, one.detail) for one in odd),
            *(LeftOut(path, "in a deeper folder") for path in nested),
            *(LeftOut(path, "hidden") for path in contents.hidden),
        ],
        key=lambda item: item.path,
    )
