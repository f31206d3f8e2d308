"""Galleries in SQLite and in PostgreSQL: the same answers, and nothing half done."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamese import Embedder, Gallery
from siamese.errors import UserError
from siamese.models.checkpoint import update_checkpoint
from siamese.models.scoring import FittedOn, ScoringMap
from siamese.recognition.stores import NoGallery, StoredPicture, open_store
from siamese.verification.identification import identify
from tests.runs import write_random_model

DIMENSIONS = 8
MODEL = "0" * 64


@pytest.fixture
def model(make_checkpoint: Callable[..., Path]) -> Embedder:
    return Embedder.load(make_checkpoint("run", threshold=0.999), "cpu")


@pytest.fixture
def gallery(place: str, model: Embedder) -> Gallery:
    return Gallery(place, model)


def _unit(rng: np.random.Generator, number: int) -> np.ndarray:
    vectors = rng.normal(size=(number, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _stored(vectors: np.ndarray, start: int = 0) -> list[StoredPicture]:
    return [
        StoredPicture(f"/faces/{n}.jpg", f"{n:064x}", "2026-01-01T00:00:00+00:00", vector)
        for n, vector in enumerate(vectors, start)
    ]


def test_names_come_from_folders_and_again_adds_nothing(
    gallery: Gallery, face_folder: Path
) -> None:
    done = gallery.enroll_folder(face_folder)
    assert (done.people, done.added, done.present) == (6, 36, 0)
    assert {one.name: one.pictures for one in gallery.people()} == dict.fromkeys(
        os.listdir(face_folder), 6
    )
    again = gallery.enroll_folder(face_folder)
    assert (again.added, again.present) == (0, 36)


def test_where_there_is_no_gallery_none_is_made_without_a_model(place: str) -> None:
    for _ in range(2):
        with pytest.raises(NoGallery, match="siamese-use enroll"):
            Gallery(place, create=False)


def test_the_command_enrolls_with_the_gallerys_own_model(
    gallery: Gallery, place: str, face_folder: Path, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    newer = write_random_model(tmp_path / "checkpoints" / "newer" / "best.pt", seed=1)
    os.utime(newer, (time.time() + 60,) * 2)
    done = run_here("use", "enroll", str(face_folder), "--gallery", place, cwd=tmp_path)
    assert "36 pictures enrolled" in done.stdout, done.stderr
    assert len(gallery.people()) == 6


def test_an_enrolled_picture_is_its_person(gallery: Gallery, face_folder: Path) -> None:
    gallery.enroll_folder(face_folder)
    picture = face_folder / "夏子" / "3.png"
    found = gallery.identify(picture, top=3, prior=0.2)
    assert found.name == "夏子"
    assert found.candidates[0].score == 1
    assert found.candidates[0].path == str(picture)
    assert found.threshold == 0.999
    assert len(found.candidates) == 3
    odds = np.exp(4.0 - 2.0) * 0.2 / 0.8
    assert found.candidates[0].probability == pytest.approx(odds / (1 + odds))
    nobody = gallery.identify(picture, threshold=1.5)
    assert nobody.name is None
    assert nobody.candidates[0].name == "夏子"


def test_ranking_is_that_of_a_naive_loop(place: str, model: Embedder) -> None:
    rng = np.random.default_rng(0)
    gallery = Gallery(place, model)
    store = open_store(place)
    people = {f"p{n:02}": _stored(_unit(rng, 1 + n % 4), 10 * n) for n in range(40)}
    store.add(people, model.fingerprint)
    for query in _unit(rng, 20):
        best = {
            name: max(float(query.astype(np.float64) @ one.embedding) for one in pictures)
            for name, pictures in people.items()
        }
        expected = sorted(best, key=lambda name: -best[name])[:7]
        found = gallery.identify_embeddings(query[None], top=7)[0]
        assert [one.name for one in found.candidates] == expected
        scores = [one.score for one in found.candidates]
        assert scores == pytest.approx([best[name] for name in expected], abs=1e-6)


def test_searches_give_the_figures_of_evaluation(place: str, model: Embedder) -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(12), 7)
    vectors = _unit(rng, 12)[labels] + 0.5 * _unit(rng, len(labels))
    judged = identify(vectors, labels, images_per_person=3, draws=1, seed=0)
    # The gallery that evaluation draws: three random pictures of each person.
    shuffled = np.random.default_rng([0, 0]).permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    enrolled = np.concatenate([ordered[7 * n : 7 * n + 3] for n in range(12)])
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    gallery = Gallery(place, model)
    open_store(place).add(
        {f"{n:02}": _stored(unit[enrolled[labels[enrolled] == n]], 10 * n) for n in range(12)},
        model.fingerprint,
    )
    probes = np.setdiff1d(np.arange(len(labels)), enrolled)
    answers = gallery.identify_embeddings(vectors[probes], top=12)
    first = [int(answer.candidates[0].name) for answer in answers]
    rank_1 = np.mean(np.array(first) == labels[probes])
    assert rank_1 == judged.cmc[0]
    strangers = [
        max(one.score for one in answer.candidates if int(one.name) != labels[probe])
        for answer, probe in zip(answers, probes, strict=True)
    ]
    threshold = judged.threshold_at(0.1)
    assert np.mean(np.array(strangers) >= threshold) <= 0.1
    missed = [
        int(answer.candidates[0].name) != labels[probe] or answer.candidates[0].score < threshold
        for answer, probe in zip(answers, probes, strict=True)
    ]
    assert np.mean(missed) == judged.fnir_at(0.1)


def test_another_model_is_refused_and_migrates(
    place: str, model: Embedder, make_checkpoint: Callable[..., Path], face_folder: Path
) -> None:
    with Gallery(place, model) as gallery:
        gallery.enroll_folder(face_folder)
    other = Embedder.load(make_checkpoint("other", seed=1), "cpu")
    with pytest.raises(UserError, match="embeddings of another model"):
        Gallery(place, other)
    with Gallery(place, create=False) as gallery:
        assert gallery.migrate(other) == (36, ())
    vectors = other.embed(face_folder)
    moved = Gallery(place, other)
    stored = np.stack([one.embedding for one in open_store(place).pictures("夏子")])
    expected = vectors[-6:] / np.linalg.norm(vectors[-6:], axis=1, keepdims=True)
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    assert moved.identify(face_folder / "夏子" / "0.png").candidates[0].name == "夏子"
    with pytest.raises(UserError, match="embeddings of another model"):
        Gallery(place, model)


def test_another_scoring_of_the_model_is_refused_and_migrates(
    place: str, make_checkpoint: Callable[..., Path], face_folder: Path
) -> None:
    path = make_checkpoint("scored", threshold=0.1)
    rng = np.random.default_rng(0)
    matrix, fitted = rng.normal(size=(8, 5)), FittedOn(9, 18, False, None, "2026-01-01")
    made = ScoringMap(np.zeros(8, np.float32), matrix.astype(np.float32), fitted)
    update_checkpoint(path, "scoring", made.as_dict())
    plain, mapped = (Embedder.load(path, "cpu", scoring=one) for one in ("auto", "plda"))
    with Gallery(place, plain) as gallery:
        gallery.enroll_folder(face_folder)
    with pytest.raises(UserError, match="embeddings of another model or scoring"):
        Gallery(place, mapped)
    with Gallery(place, create=False) as gallery:
        assert gallery.migrate(mapped) == (36, ())
    moved = Gallery(place, mapped)
    assert moved.head.dimensions == 5
    found = moved.identify(face_folder / "夏子" / "0.png")
    assert found.candidates[0].name == "夏子"
    assert found.threshold is None, "it was chosen for the cosine"
    stored = open_store(place).pictures("夏子")[0].embedding
    vector = mapped.embed(face_folder / "夏子" / "0.png")[0]
    np.testing.assert_allclose(stored, vector / np.linalg.norm(vector), atol=1e-5)
    with pytest.raises(UserError, match="embeddings of another model or scoring"):
        Gallery(place, plain)


def test_a_stopped_migration_leaves_the_old_model_in_force_and_goes_on(
    place: str, model: Embedder, make_checkpoint: Callable[..., Path], face_folder: Path
) -> None:
    gallery = Gallery(place, model)
    gallery.enroll_folder(face_folder)
    other = Embedder.load(make_checkpoint("other", seed=1), "cpu")
    hidden = face_folder / "eve" / "5.png"
    hidden.rename(face_folder / "kept.png")
    with pytest.raises(UserError, match=r"5\.png: 1 enrolled pictures are not there"):
        gallery.migrate(other)
    assert gallery.identify(face_folder / "eve" / "4.png").name == "eve"
    store = open_store(place)
    done = [number for number, _ in store.outdated(other.fingerprint, 100)][:30]
    store.renew(dict(zip(done, _unit(np.random.default_rng(0), 30), strict=True)), "of a third")
    assert len(store.outdated(other.fingerprint, 100)) == 36  # those of another model do not count
    shutil.copy(face_folder / "eve" / "4.png", hidden)
    assert gallery.migrate(other)[1] == (f"{hidden}: has changed since it was enrolled",)
    assert store.head().fingerprint == other.fingerprint


def test_who_writes_with_the_old_model_after_a_switch_is_refused(
    place: str, model: Embedder
) -> None:
    Gallery(place, model)
    store, writer = open_store(place), open_store(place)
    assert store.switch(replace(store.head(), fingerprint=MODEL))
    with pytest.raises(UserError, match="embeddings of another model"):
        writer.add({"ann": _stored(_unit(np.random.default_rng(0), 1))}, model.fingerprint)
    assert writer.people() == []


def test_two_names_of_one_person_are_reported(gallery: Gallery, face_folder: Path) -> None:
    gallery.enroll_folder(face_folder)
    same = gallery.enroll("Natsuko", [face_folder / "夏子" / "0.png"])
    assert same.notes == ("Natsuko: a picture is also enrolled as 夏子",)
    path = face_folder / "copy.png"
    path.write_bytes((face_folder / "夏子" / "1.png").read_bytes() + b" ")  # another file
    alike = gallery.enroll("Other", [path])
    assert "Other: looks like 夏子 (score 1.0000" in alike.notes[0]


def test_one_broken_picture_enrolls_nothing_of_a_person(
    gallery: Gallery, face_folder: Path
) -> None:
    broken = face_folder / "Ann" / "broken.png"
    broken.write_bytes((face_folder / "Ann" / "0.png").read_bytes()[:400])
    with pytest.raises(UserError, match=r"broken\.png"):
        gallery.enroll("Ann", [face_folder / "Ann" / "1.png", broken])
    assert gallery.people() == []
    done = gallery.enroll_folder(face_folder)
    assert done.added == 36
    assert any("broken.png" in note for note in done.notes)


def test_forgetting_leaves_nothing_of_a_person(
    gallery: Gallery, place: str, face_folder: Path
) -> None:
    gallery.enroll_folder(face_folder)
    embedding = open_store(place).pictures("夏子")[0].embedding.tobytes()
    if "://" not in place:
        assert embedding in Path(place).read_bytes()
    with pytest.raises(UserError, match="nobody: nobody of that name"):
        gallery.forget(["夏子", "nobody"])
    assert gallery.forget(["夏子"]) == 6
    assert "夏子" not in [one.name for one in gallery.people()]
    assert all(
        one.name != "夏子" for one in gallery.identify(face_folder / "夏子" / "0.png").candidates
    )
    if "://" not in place:
        content = Path(place).read_bytes()
        assert embedding not in content
        assert "夏子".encode() not in content


def test_what_is_stored_about_a_person_is_all_shown(gallery: Gallery, face_folder: Path) -> None:
    gallery.enroll("e\N{COMBINING ACUTE ACCENT}ve", [face_folder / "eve" / "0.png"])
    content = json.loads(json.dumps(gallery.person("\N{LATIN SMALL LETTER E WITH ACUTE}ve")))
    assert content["name"] == "\N{LATIN SMALL LETTER E WITH ACUTE}ve"  # one form of Unicode
    (picture,) = content["pictures"]
    assert picture["path"] == str(face_folder / "eve" / "0.png")
    assert len(picture["embedding"]) == DIMENSIONS
    assert picture.keys() == {"path", "sha256", "enrolled", "embedding"}


def test_two_writers_lose_nothing(place: str, model: Embedder) -> None:
    Gallery(place, model)
    rng = np.random.default_rng(0)
    vectors = _unit(rng, 200)

    def write(first: int) -> None:
        store = open_store(place)
        for n in range(first, 200, 2):
            names = [f"p{n}", "shared"] if n % 4 < 2 else ["shared", f"p{n}"]
            people = {name: _stored(vectors[n : n + 1], n) for name in names}
            store.add(people, model.fingerprint)
        store.close()

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    people = {one.name: one.pictures for one in open_store(place).people()}
    assert people.pop("shared") == 200
    assert people == {f"p{n}": 1 for n in range(200)}


def test_a_search_sees_what_others_have_written(place: str, model: Embedder) -> None:
    gallery = Gallery(place, model)
    query = _unit(np.random.default_rng(0), 1)
    assert gallery.identify_embeddings(query)[0].candidates == ()
    open_store(place).add({"new": _stored(query)}, model.fingerprint)
    assert gallery.identify_embeddings(query)[0].candidates[0].name == "new"


_ENROLL = """
import sys
from siamese import Embedder, Gallery
Gallery(sys.argv[1], Embedder.load(sys.argv[2], "cpu")).enroll_folder(sys.argv[3])
"""


def test_killed_while_enrolling_each_person_is_there_whole_or_not(
    place: str, model: Embedder, draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    faces = draw_people(tmp_path / "many", [f"p{n}" for n in range(120)], 8)
    command = [sys.executable, "-c", _ENROLL, place, model.origin, str(faces)]
    process = subprocess.Popen(command)
    Gallery(place, model).close()
    while not (begun := open_store(place).people()) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert begun
    people = open_store(place).people()
    assert all(one.pictures == 8 for one in people)
    done = Gallery(place, model).enroll_folder(faces)
    assert done.added + done.present == 960
    assert done.present == 8 * len(people)


def test_copied_to_another_place_it_answers_the_same(
    place: str, model: Embedder, face_folder: Path, tmp_path: Path
) -> None:
    gallery = Gallery(place, model)
    gallery.enroll_folder(face_folder)
    target = str(tmp_path / "copy.db")
    assert gallery.copy_to(target) == 36
    assert gallery.copy_to(target) == 0
    picture = face_folder / "dora" / "2.png"
    assert Gallery(target, model).identify(picture) == gallery.identify(picture)


def test_an_index_is_approximate_and_says_how_good_it_is(place: str, model: Embedder) -> None:
    gallery = Gallery(place, model)
    rng = np.random.default_rng(0)
    people = {f"p{n:03}": _stored(_unit(rng, 2), 10 * n) for n in range(300)}
    open_store(place).add(people, model.fingerprint)
    if "://" not in place:
        with pytest.raises(UserError, match="`search` hnsw: needs a gallery in PostgreSQL"):
            gallery.make_index()
        return
    recall = gallery.make_index()
    assert recall is not None
    assert recall > 0.9
    queries = _unit(rng, 20)
    exact = gallery.identify_embeddings(queries, top=1)
    near = gallery.identify_embeddings(queries, top=1, approximate=True)
    pairs = zip(exact, near, strict=True)
    assert sum(a.candidates[0].name == b.candidates[0].name for a, b in pairs) >= 18


def test_uploads_are_enrolled_together_and_named_as_such(
    gallery: Gallery, face_folder: Path, make_checkpoint: Callable[..., Path]
) -> None:
    contents = {f"../{n}.png": (face_folder / "Ann" / f"{n}.png").read_bytes() for n in range(3)}
    with pytest.raises(UserError, match=r"b\.png"):
        gallery.enroll_uploads("Ann", {**contents, "b.png": b"nothing"})
    assert gallery.people() == []
    done = gallery.enroll_uploads("Ann", contents)
    assert (done.added, done.present) == (3, 0)
    again = gallery.enroll_uploads("Ann", contents)
    assert (again.added, again.present) == (0, 3)
    stored = gallery.person("Ann")["pictures"]
    assert [one["path"] for one in stored] == [f"upload://{n}.png" for n in range(3)]
    # The file itself is known by its content, and found.
    by_path = gallery.enroll("Ann", [face_folder / "Ann" / "0.png"])
    assert by_path.present == 1
    assert gallery.identify(face_folder / "Ann" / "1.png").candidates[0].score == 1
    gallery.enroll("Bob", [face_folder / "Bob Lee" / "0.png"])
    newer = Embedder.load(make_checkpoint("newer", seed=1), "cpu")
    with pytest.raises(UserError, match=r"1 people \(Ann\) were uploaded and not kept"):
        gallery.migrate(newer)
    gallery.forget(["Ann"])
    assert gallery.migrate(newer)[0] == 1
    for none in ({}, []):
        with pytest.raises(UserError, match="no picture"):
            gallery.enroll_uploads("Cy", none)
