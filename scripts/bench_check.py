"""How fast a folder is checked: the first run, and the second one from the cache.

    python scripts/bench_check.py                    # 100,000 pictures of 128 x 128
    python scripts/bench_check.py --images 20000 --workers 2

Draws distinct pictures with the detail of small face crops as JPEGs, checks them twice, and takes
the near-duplicate search apart. "bare decoding" is one process that only decodes, so that a busy
machine can be told from a slow program.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, PER_PERSON, MEASURED = 128, 100, 1000


def draw(root: Path, person: int, images: int) -> None:
    """Smooth shapes with fine noise: about 5 kB each as a JPEG, as small face crops have."""
    rng = np.random.default_rng(person)
    folder = root / f"person {person:05d}"
    folder.mkdir()
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        smooth = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth) + rng.normal(0, 4, (SIDE, SIDE, 3))
        file = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        (folder / f"{number:04d}.jpg").write_bytes(file.getvalue())


def draw_all(root: Path, images: int, workers: int) -> None:
    people = range(0, images, PER_PERSON)
    with ProcessPoolExecutor(workers) as pool:
        drawn = [
            pool.submit(draw, root, at // PER_PERSON, min(PER_PERSON, images - at)) for at in people
        ]
        for one in drawn:
            one.result()


def bare_decoding(root: Path) -> float:
    """Pictures per second of one process that does nothing but decode."""
    from siamese.data.decode import decode

    paths = [path for folder in sorted(root.iterdir())[: MEASURED // PER_PERSON + 1]
             for path in sorted(folder.iterdir())][:MEASURED]  # fmt: skip
    start = time.perf_counter()
    for path in paths:
        decode(path)
    return len(paths) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    from siamese.config import CheckSettings
    from siamese.curation.check import check_folder

    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "faces")
        root.mkdir()
        draw_all(root, given.images, given.workers)
        size = sum(path.stat().st_size for path in root.rglob("*.jpg"))
        print(f"{given.images} JPEGs of {SIDE} x {SIDE}, {size / given.images / 1000:.1f} kB each")
        bare = bare_decoding(root)
        print(f"bare decoding    {bare:8.0f} images/s, one process")
        settings = CheckSettings(data=str(root), out=str(Path(place, "out")), workers=given.workers)
        rates = []
        for run in ("first run", "second run"):
            start = time.perf_counter()
            checked = check_folder(settings)
            seconds = time.perf_counter() - start
            rates.append(given.images / seconds)
            print(
                f"{run:16} {rates[-1]:8.0f} images/s, {seconds:.1f} s, {given.workers} workers, "
                f"{rates[-1] / bare:.2f} x bare decoding"
            )
        print(f"second / first   {rates[1] / rates[0]:8.1f}")
        print(f"findings         {[(one.kind, len(one.found)) for one in checked.findings]}")


if __name__ == "__main__":
    main()
