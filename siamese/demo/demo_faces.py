"""Demo faces: a small face-verification data set that the tool draws itself.

A new user can try every command with no data and no download. The pictures are synthetic: a
person comes about in `siamese.demo.face_traits`, a picture in `siamese.demo.face_drawing`.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from siamese.demo.face_drawing import draw_face
from siamese.demo.face_traits import Traits, draw_traits
from siamese.errors import UserError
from siamese.files.places import read_bytes
from siamese.files.writing import drafting
from siamese.processors import processors

__all__ = ["DEMO_VERSION", "Traits", "demo_face", "draw_face", "draw_traits", "write_demo_faces"]

# Raised when the drawing changes, so that folders drawn earlier are not taken for current ones.
DEMO_VERSION: int = 1

RECORD_NAME = ".demo.json"
_RECORD_LIMIT = 2**16  # bytes
SMALLEST_SIZE = 32
LARGEST_SIZE = 1024
JPEG_QUALITY = 92


def demo_face(seed: int, person: int, image: int, size: int = 96) -> Image.Image:
    """Draw picture `image` of person `person` of the demo set `seed`, all >= 0.

    The picture is RGB, size x size pixels, and depends on these four numbers alone.

    Raises:
        ValueError: a number is negative.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, person, image)))
    return draw_face(draw_traits(seed, person), rng, size)


def write_demo_faces(
    out: Path,
    people: int = 60,
    images: int = 20,
    size: int = 96,
    seed: int = 0,
    *,
    progress: bool = True,
    processes: int | None = None,
) -> Path:
    """Write a folder of demo faces, `out/<person>/<image>.jpg`, and return `out`.

    Args:
        out: the folder to make. If it already holds this very set it is kept as it is.
        people: number of people, >= 1.
        images: pictures of each person, >= 1.
        size: side of a picture in pixels, >= 32.
        seed: which set to draw, >= 0.
        progress: show a progress bar.
        processes: how many processes draw, >= 1; one for each usable processor when None.

    The set is drawn into a folder beside `out` which is renamed at the end: an interrupted run
    leaves nothing under the name of `out`.

    Raises:
        UserError: a number is too small, `out` exists and holds something else, or no folder can
            be made there.
    """
    _check_numbers(people, images, size, seed, processes)
    record = {
        "version": DEMO_VERSION,
        "people": people,
        "images": images,
        "size": size,
        "seed": seed,
    }
    if _is_drawn(out, record):
        return out
    place = out.resolve()
    try:
        with drafting(place) as draft:
            _draw_all(draft, record, progress=progress, processes=processes or processors())
            (draft / RECORD_NAME).write_text(json.dumps(record) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot make {out} ({error.strerror}); name another folder") from error
    return out


def _check_numbers(people: int, images: int, size: int, seed: int, processes: int | None) -> None:
    lowest = {
        "people": (people, 1),
        "images": (images, 1),
        "size": (size, SMALLEST_SIZE),
        "seed": (seed, 0),
        "processes": (1 if processes is None else processes, 1),
    }
    for name, (value, least) in lowest.items():
        if value < least:
            raise UserError(f"demo faces: {name} is {value}; give at least {least}")
    if size > LARGEST_SIZE:
        raise UserError(f"demo faces: size is {size}; give at most {LARGEST_SIZE}")


def _is_drawn(out: Path, record: dict[str, int]) -> bool:
    """Whether `out` holds the set of this record; False if it is missing or empty.

    Raises:
        UserError: `out` holds anything else.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file; name a new folder for the demo faces")
    if not any(out.iterdir()):
        return False
    found = _read_record(out / RECORD_NAME)
    if found == record:
        return True
    held = "other demo faces" if found is not None else "files that are not demo faces"
    raise UserError(f"{out} already holds {held}; name a new folder or remove this one")


def _read_record(path: Path) -> object:
    """The content of a record file, or None where there is no readable one."""
    try:
        return json.loads(read_bytes(path, limit=_RECORD_LIMIT))
    except (UserError, ValueError, RecursionError):
        return None


def _draw_all(folder: Path, record: dict[str, int], *, progress: bool, processes: int) -> None:
    """Draw every person of the record into `folder`."""
    people = range(record["people"])
    draw = partial(
        _draw_person, folder, images=record["images"], size=record["size"], seed=record["seed"]
    )
    if processes == 1:
        _exhaust(map(draw, people), len(people), progress=progress)
        return
    with ProcessPoolExecutor(min(processes, len(people))) as pool:
        try:
            _exhaust(pool.map(draw, people), len(people), progress=progress)
        except BaseException:
            # Leaving the block waits for what is queued; a stopped run should not draw it all.
            pool.shutdown(cancel_futures=True)
            raise


def _exhaust(done: Iterable[None], total: int, *, progress: bool) -> None:
    for _ in tqdm(
        done, "drawing demo faces", total, unit="person", disable=None if progress else True
    ):
        pass


def _draw_person(folder: Path, person: int, *, images: int, size: int, seed: int) -> None:
    """Write the pictures of one person, numbered from 1."""
    own = folder / f"demo_{person + 1:03d}"
    own.mkdir()
    for image in range(images):
        face = demo_face(seed, person, image, size)
        face.save(own / f"{image + 1:04d}.jpg", quality=JPEG_QUALITY)
