"""A run's name and place on disk, for every task."""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from siamese.errors import UserError
from siamese.files.places import is_near, is_regular, read_bytes
from siamese.files.shown import shown
from siamese.files.writing import held

_WRITTEN = ("runs", "checkpoints", "cache")  # settings that name a folder which a run writes into
_UNSAID = "(nobody has said it)"


def free_name(base: str, runs: str, checkpoints: str) -> str:
    """A run's name from what it is and the time, which nothing on disk has yet."""
    first = f"{base}-{time.strftime('%Y%m%d-%H%M%S')}"
    name, number = first, 1
    while any((Path(root) / name).exists() for root in (runs, checkpoints)):
        number += 1
        name = f"{first}-{number}"
    return name


def take_name(name: str, runs: str, checkpoints: str, resume: str) -> str | None:
    """Make sure that a run's name is free; a line where one that was begun in vain is taken over.

    A run that was killed before its first checkpoint cannot be gone on with. What it left is what a
    run writes before its first step, and is removed; anything else is not touched, but a UserError.
    """
    places = [Path(root) / name for root in (runs, checkpoints)]
    there = [place for place in places if os.path.lexists(place)]
    if not there:
        return None
    if (kept := goes_on_from(places[1])) is not None:
        way_on = name if kept.name == "last.pt" else kept
        raise UserError(
            f"{there[0]} exists already: choose another `name`, or continue it with {resume} "
            f"{way_on}"
        )
    if not all(map(_is_begun_in_vain, there)):
        raise UserError(f"{there[0]} exists already: choose another `name`, or remove it")
    with at_work(places[0]):
        for place in there:
            shutil.rmtree(place)
    return f"{name} was stopped before its first checkpoint: it begins anew"


# What a run writes before its first checkpoint.
_FIRST_FILES = (
    "settings.yaml", "split.json", "data_report.txt", "projector_config.pbtxt", "events.out.*",
    "metrics.csv", ".*.tmp",
)  # fmt: skip


def _is_begun_in_vain(place: Path) -> bool:
    """Whether a folder holds nothing but what a run writes before its first checkpoint."""
    return (
        place.is_dir()
        and not place.is_symlink()
        and all(
            file.is_file() and any(fnmatch(file.name, known) for known in _FIRST_FILES)
            for file in place.iterdir()
        )
        and _epochs_written(place / "metrics.csv") <= 1
    )


def _epochs_written(metrics: Path) -> int:
    """Rows of a table of figures; the first is written just before the first checkpoint."""
    return max(0, read_bytes(metrics).count(b"\n") - 1) if is_regular(metrics) else 0


def goes_on_from(folder: Path) -> Path | None:
    """The checkpoint in a run's folder that a run goes on from; None where there is none.

    ``best.pt`` alone is left where a run ended between the two writes of its first epoch, and holds
    the same state as ``last.pt`` would.
    """
    kept = (folder / name for name in ("last.pt", "best.pt"))
    return next((path for path in kept if path.exists()), None)


def way_on(folder: Path, resume: str) -> str:
    """How a run that ended too early is continued, in words; ``resume``: the command that does."""
    kept = goes_on_from(folder)
    return "start again" if kept is None else f"go on with: {resume} {kept}"


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Hold a run's name while a process works on it; a kill sets it free. UserError where it is
    held.
    """
    path = folder.parent / f".{folder.name}.work"
    busy = f"{folder}: another process is at work on this run; wait for it, or choose a new `name`"
    with held(path, UserError(busy)):
        try:
            yield
        finally:
            # Still held: whoever opened it meanwhile gets a lock of no use, but beside a run that
            # is over.
            with suppress(OSError):
                path.unlink()


def read_metrics(path: Path, way_on: str) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``, numbers or empty; UserError. None while there is no
    file.
    """
    if not path.exists():
        return []
    text = read_bytes(path).decode("utf-8", "replace")
    rows: list[dict[str, str]] = []
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            for value in row.values():
                float(value or 0)  # a list, where there are more values than columns
            int(row["epoch"])
            rows.append(row)
    except (TypeError, ValueError, KeyError, csv.Error):
        raise UserError(f"{path} line {len(rows) + 2}: is damaged; {way_on}") from None
    return rows


def find_checkpoint(target: str, checkpoints: str, resume: str) -> Path:
    """The checkpoint that a run, given by name, folder or file, goes on from; UserError."""
    given, folder = Path(target), Path(checkpoints)
    for path in (given, given / "last.pt", folder / target / "last.pt"):
        if is_regular(path):
            return path
    for home in (given, folder / target):
        if (kept := goes_on_from(home)) is not None:
            # Not taken unasked: if later epochs were lost with last.pt, their log would be, too.
            raise UserError(
                f"{resume} {target}: there is no last.pt; {resume} {kept} goes on from it"
            )
    runs = sorted(path.parent.name for path in folder.glob("*/last.pt"))
    known = f"; runs here: {', '.join(runs[-5:])}" if runs else ""
    raise UserError(f"{resume} {target}: no such checkpoint or run in {folder}{known}")


def refuse_other_home(checkpoint: Path, checkpoints: str, name: str) -> None:
    """UserError where a checkpoint is a copy, while its run lies elsewhere."""
    home = Path(checkpoints) / name
    if home.exists() and home.resolve() != checkpoint.parent.resolve():
        raise UserError(
            f"{checkpoint}: its run is {home}, which would be written over; resume that one, or "
            "give another folder with `checkpoints`"
        )


def refuse_far_places(
    checkpoint: Path, saved: Mapping[str, Any], parse: Callable[[dict[str, Any]], Any]
) -> None:
    """UserError where only a checkpoint, which may come from anywhere, names a far place to write.

    ``saved`` are its settings, nested plain values; ``parse`` lays the user's over them.
    """
    named = {name: saved[name] for name in _WRITTEN if isinstance(saved.get(name), str)}
    far = [name for name, place in named.items() if not is_near(place, checkpoint)]
    given = parse({**saved, **dict.fromkeys(far, _UNSAID)}) if far else None
    for name in far:
        if getattr(given, name) == _UNSAID:
            raise UserError(
                f"{checkpoint}: says that {name} is {shown(saved[name])}, which lies neither in "
                f"the working folder nor beside its checkpoints; if that is right, give `{name}`"
            )


def refuse_changes(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    may_change: frozenset[str],
    way_on: str,
    prefix: str = "",
) -> None:
    """UserError where settings, nested plain values, would make a resumed run another one.

    ``may_change``: dotted names that may differ; ``way_on``: what to do instead.
    """
    for key, value in now.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            refuse_changes(saved.get(key, {}), value, may_change, way_on, f"{name}.")
        elif name not in may_change and value != saved.get(key):
            raise UserError(
                f"`{name}` was {saved.get(key)} and cannot become {value} in a resumed run; leave "
                f"it out, or {way_on}"
            )
