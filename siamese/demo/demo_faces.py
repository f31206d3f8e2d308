"""Demo faces: a small face-verification data set that the tool draws itself.

A new user can try every command with no data and no download. The pictures are synthetic, see
`siamese.demo.face_drawing`.
"""

import json
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from siamese.demo.face_drawing import draw_face, draw_traits
from siamese.errors import UserError
from siamese.files.places import read_bytes
from siamese.files.writing import drafting
from siamese.processors import processors

# Raise it by hand when the drawing changes: older folders are then not taken for current ones.
DEMO_VERSION: int = 2

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
        size: side of a picture in pixels, 32 to 1024.
        seed: which set to draw, >= 0.
        progress: show a progress bar.
        processes: how many processes draw, >= 1; one for each usable processor when None.

    The set is drawn into a folder beside `out` which is renamed at the end: an interrupted run
    leaves nothing under the name of `out`.

    Raises:
        UserError: a number is out of its range, `out` exists and holds something else, or no
            folder can be made there.
    """
    record = {"people": people, "images": images, "size": size, "seed": seed}
    for name, least in {"people": 1, "images": 1, "size": SMALLEST_SIZE, "seed": 0}.items():
        if record[name] < least:
            raise UserError(f"demo faces: {name} is {record[name]}; give at least {least}")
    if size > LARGEST_SIZE:
        raise UserError(f"demo faces: size is {size}; give at most {LARGEST_SIZE}")
    record = {"version": DEMO_VERSION, **record}
    if _is_drawn(out, record):
        return out
    try:
        with drafting(out.resolve()) as draft:
            draw = partial(_draw_person, draft, images=images, size=size, seed=seed)
            with _pool(min(processes or processors(), people)) as pool:
                done = pool.map(draw, range(people))
                hidden = None if progress else True
                try:
                    list(tqdm(done, "drawing demo faces", people, unit="person", disable=hidden))
                except BaseException:
                    # Leaving the block waits for what is queued; a stopped run does not draw it.
                    pool.shutdown(cancel_futures=True)
                    raise
            (draft / RECORD_NAME).write_text(json.dumps(record) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot make {out} ({error.strerror}); name another folder") from error
    return out


def _pool(processes: int) -> Executor:
    return ThreadPoolExecutor(1) if processes == 1 else ProcessPoolExecutor(processes)


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
    try:
        found = json.loads(read_bytes(out / RECORD_NAME, limit=_RECORD_LIMIT))
    except (ValueError, RecursionError):
        found = None
    if found == record:
        return True
    held = "other demo faces" if found is not None else "files that are not demo faces"
    raise UserError(f"{out} already holds {held}; name a new folder or remove this one")


def _draw_person(folder: Path, person: int, *, images: int, size: int, seed: int) -> None:
    """Write the pictures of one person, numbered from 1."""
    place = folder / f"demo_{person + 1:03d}"
    place.mkdir()
    for image in range(images):
        face = demo_face(seed, person, image, size)
        face.save(place / f"{image + 1:04d}.jpg", quality=JPEG_QUALITY)
