"""The cache of facts: right, lasting, and never in the way."""

import multiprocessing
import os
import sqlite3
from dataclasses import replace

import pytest

from siamese.curation.checking import facts as facts_module
from siamese.curation.checking.facts import FactStore, FileKey, open_store
from siamese.curation.checking.inspection import FileFacts
from siamese.errors import UserError

SEEN = FileFacts("usable", "", "ab", "JPEG", "RGB", 40, 30, 6, 2, "cd", 12.5)
KEY = FileKey("/faces/Ann/a.jpg", 10**18 + 7, 5000)


def stored(path, keys):
    with open_store(path) as store:
        return store.known(keys)


def test_facts_come_back_as_they_were(tmp_path):
    odd = FileKey(os.fsdecode(b"/faces/\xff\n \xe5\xa4\x8f/-b"), 1, 2)
    with open_store(tmp_path / "new" / "facts.sqlite") as store:
        store.add(KEY, SEEN)
        store.add(odd, FileFacts("unreadable", "OSError: broken \\xff"))
    known = stored(tmp_path / "new" / "facts.sqlite", [KEY, odd])
    assert known[KEY.path] == SEEN
    assert known[odd.path].status == "unreadable"


@pytest.mark.parametrize("change", [{"modified": 5}, {"size": 5001}, {"path": "/faces/Ann/b.jpg"}])
def test_a_changed_file_is_unknown(tmp_path, change):
    with open_store(tmp_path / "f") as store:
        store.add(KEY, SEEN)
    assert stored(tmp_path / "f", [replace(KEY, **change)]) == {}
    assert stored(tmp_path / "f", [KEY]) == {KEY.path: SEEN}


def test_facts_of_another_version_are_unknown(tmp_path, monkeypatch):
    with open_store(tmp_path / "f") as store:
        store.add(KEY, SEEN)
    monkeypatch.setattr(facts_module, "_VERSION", "another")
    assert stored(tmp_path / "f", [KEY]) == {}


def damage_begin(path):
    path.write_bytes(b"this is no database at all" * 50)


def damage_middle(path):
    data = bytearray(path.read_bytes())
    data[4096:-1000] = b"\xa5" * (len(data) - 5096)
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def another_table(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE facts (something)")
    connection.close()


@pytest.mark.parametrize("harm", [damage_begin, damage_middle, cut, another_table])
def test_a_damaged_file_is_set_aside(tmp_path, harm):
    path = tmp_path / "facts.sqlite"
    with open_store(path) as store:
        for number in range(500):
            store.add(replace(KEY, path=f"/faces/{number}"), SEEN)
    harm(path)
    harmed = path.read_bytes()
    with open_store(path) as store:
        assert store.known([KEY]) == {}
        assert "damaged" in store.notes[0]
        store.add(KEY, SEEN)
    assert (tmp_path / "facts.sqlite.damaged").read_bytes() == harmed
    with open_store(path) as store:
        assert store.known([KEY]) == {KEY.path: SEEN}
        assert not store.notes


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / "facts.sqlite").mkdir()
    with pytest.raises(UserError, match=r"facts\.sqlite: cannot be opened"):
        FactStore(tmp_path / "facts.sqlite")


def test_a_store_that_fails_on_the_way_does_not_stop_the_run(tmp_path):
    with open_store(tmp_path / "f") as store:
        store._connection.execute("DROP TABLE facts")
        store.add(KEY, SEEN)
        store.write()
        assert "are not kept" in store.notes[0]
        store.add(KEY, SEEN)
    assert len(store.notes) == 1


def write_some(path, first):
    with open_store(path) as store:
        for number in range(first, first + 300):
            store.add(replace(KEY, path=f"/faces/{number}"), SEEN)
            if number % 20 == 0:
                store.write()


def test_two_runs_at_once(tmp_path):
    path = tmp_path / "facts.sqlite"
    runs = [
        multiprocessing.Process(target=write_some, args=(path, first)) for first in (0, 200, 400)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    keys = [replace(KEY, path=f"/faces/{number}") for number in range(700)]
    assert len(stored(path, keys)) == 700


def test_batches_are_written_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(facts_module, "_BATCH", 10)
    store = FactStore(tmp_path / "f")
    for number in range(25):
        store.add(replace(KEY, path=f"/faces/{number}"), SEEN)
    keys = [replace(KEY, path=f"/faces/{number}") for number in range(25)]
    assert len(stored(tmp_path / "f", keys)) == 20  # what a killed run leaves
    store.close()
    assert len(stored(tmp_path / "f", keys)) == 25
