"""Processes that read files: they may crash or hang, the rest is done all the same."""

import os
import signal
import time

import pytest

from siamese.curation.inspection import work_watched


def work(path):
    if path == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "hang":
        time.sleep(100)
    if path == "slow":
        time.sleep(0.4)
    return path.upper()


def done(paths, **options):
    settings = {"workers": 2, "patience": 60.0, **options}
    results = list(work_watched(paths, work, lambda reason: f"failed: {reason}", **settings))
    assert sorted(at for at, _ in results) == list(range(len(paths)))
    return [result for _, result in sorted(results)]


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_every_path_has_its_result(workers):
    paths = [f"p{number}" for number in range(200)]
    assert done(paths, workers=workers) == [path.upper() for path in paths]
    assert done([], workers=workers) == []


def test_crashes_harm_nobody_else():
    paths = [f"p{number}" for number in range(150)]
    for at in (0, 31, 32, 70, 149):
        paths[at] = "crash"
    for path, result in zip(paths, done(paths), strict=True):
        assert result == ("failed: the reader crashed on it" if path == "crash" else path.upper())


def test_a_file_without_end_is_given_up():
    start = time.monotonic()
    found = done(["a", "slow", "hang", "b", "slow", "slow"], workers=1, patience=1.5)
    assert found == ["A", "SLOW", "failed: reading it took more than 1.5 seconds", "B", "SLOW",
                     "SLOW"]  # fmt: skip
    assert time.monotonic() - start < 30


def test_stopping_ends_the_processes():
    import multiprocessing

    results = work_watched(["a"] * 40 + ["hang"] * 40, work, str, workers=2, patience=60)
    next(results)
    assert multiprocessing.active_children()
    start = time.monotonic()
    results.close()
    assert not multiprocessing.active_children()
    assert time.monotonic() - start < 5
