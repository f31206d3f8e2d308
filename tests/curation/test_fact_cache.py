"""The cache of facts: right, lasting, and never in the way."""

import json
import multiprocessing
import os
from dataclasses import replace

import pytest

from siamese.curation import inspection
from siamese.curation.inspection import FactCache, FileFacts, FileKey
from siamese.errors import UserError

SEEN = FileFacts("usable", "", "ab", "JPEG", "RGB", 40, 30, 6, 2, "cd" * 40, 12.5)
KEY = FileKey("/faces/Ann/a.jpg", 10**18 + 7, 5000)


def keep(path, *keys):
    cache = FactCache(path)
    for key in keys:
        cache.add(key, SEEN)
    cache.write()
    assert not cache.notes


def numbered(numbers):
    return [replace(KEY, path=f"/faces/{number}") for number in numbers]


def test_facts_come_back_as_they_were(tmp_path):
    odd = FileKey(os.fsdecode(b"/faces/\xff\n \xe5\xa4\x8f/-b"), 1, 2)
    broken = FileFacts("unreadable", "OSError: broken \\xff")
    path = tmp_path / "new" / "facts.jsonl"
    cache = FactCache(path)
    cache.add(KEY, SEEN)
    cache.add(odd, broken)
    cache.write()
    assert FactCache(path).known([KEY, odd]) == {KEY: SEEN, odd: broken}


@pytest.mark.parametrize("change", [{"modified": 5}, {"size": 5001}, {"path": "/faces/Ann/b.jpg"}])
def test_a_changed_file_is_unknown(tmp_path, change):
    keep(tmp_path / "f", KEY)
    assert FactCache(tmp_path / "f").known([replace(KEY, **change)]) == {}
    assert FactCache(tmp_path / "f").known([KEY]) == {KEY: SEEN}


def test_facts_of_another_version_are_unknown(tmp_path, monkeypatch):
    keep(tmp_path / "f", KEY)
    monkeypatch.setattr(inspection, "_VERSION", "another")
    assert FactCache(tmp_path / "f").known([KEY]) == {}


def hostile_lines():
    line = [inspection._VERSION, "/faces/Ann/a.jpg", KEY.modified, KEY.size, "usable", "", "ab",
            "JPEG", "RGB", 40, 30, 6, 2, "cd" * 40, 12.5]  # fmt: skip
    changes = [
        (1, 7), (1, ["x"]), (2, "9"), (3, None), (4, "good"), (4, "failed"), (5, {}), (9, "wide"),
        (9, True), (13, "zz"), (13, ""), (14, "x"),
    ]  # fmt: skip
    for place, value in changes:
        yield json.dumps([*line[:place], value, *line[place + 1 :]]).encode()
    yield json.dumps(line[:-1]).encode()
    yield json.dumps([*line, 1]).encode()
    yield json.dumps(line).encode()[:-5]
    yield from (b"5", b"null", b"{}", b'"text"', b"[]", b"[" * 100_000, b"\xff\xfe\0", b"9" * 9999)


@pytest.mark.parametrize("line", hostile_lines())
def test_a_damaged_line_counts_for_nothing(tmp_path, line):
    path = tmp_path / "facts.jsonl"
    path.write_bytes(line)
    assert FactCache(path).known([KEY]) == {}
    keep(path, KEY)  # after a line without an end, as a killed run leaves it
    assert FactCache(path).known([KEY]) == {KEY: SEEN}


def test_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "facts.jsonl").mkdir()
    with pytest.raises(UserError, match=r"facts\.jsonl: cannot be written"):
        FactCache(tmp_path / "facts.jsonl")


def test_a_cache_that_fails_on_the_way_does_not_stop_the_run(tmp_path):
    cache = FactCache(tmp_path / "f")
    (tmp_path / "f").unlink()
    (tmp_path / "f").mkdir()
    for _ in range(2):
        cache.add(KEY, SEEN)
        cache.write()
    assert cache.known([KEY]) == {}
    [note] = cache.notes
    assert "are not kept" in note


def test_two_runs_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_BATCH", 20)
    path = tmp_path / "facts.jsonl"
    runs = [
        multiprocessing.Process(target=keep, args=(path, *numbered(range(first, first + 300))))
        for first in (0, 200, 400)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert len(FactCache(path).known(numbered(range(700)))) == 700


def test_batches_are_written_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_BATCH", 10)
    cache = FactCache(tmp_path / "f")
    for key in numbered(range(25)):
        cache.add(key, SEEN)
    assert len(FactCache(tmp_path / "f").known(numbered(range(25)))) == 20  # of a killed run
    cache.write()
    assert len(FactCache(tmp_path / "f").known(numbered(range(25)))) == 25


def test_what_is_out_of_date_is_taken_out(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_BATCH", 10)
    path = tmp_path / "f"
    for change in range(5):
        keep(path, *(replace(key, modified=change) for key in numbered(range(30))))
    newest = [replace(key, modified=4) for key in numbered(range(30))]
    before = path.stat().st_size
    assert len(FactCache(path).known(newest)) == 30
    assert path.stat().st_size < before / 3
    assert len(FactCache(path).known(newest)) == 30
