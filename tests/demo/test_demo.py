import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from siamese.demo import demo_faces as demo
from siamese.demo.demo_faces import demo_face, write_demo_faces
from siamese.demo.face_drawing import draw_face, draw_traits
from siamese.errors import UserError


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(out: Path, people: int = 3, images: int = 2, **settings: int) -> Path:
    settings = {"size": 32, "processes": 1, **settings}
    return write_demo_faces(out, people, images, progress=False, **settings)


def auc_of_cosine(features: np.ndarray, people: np.ndarray) -> float:
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    one, other = np.triu_indices(len(features), 1)
    scores = (features @ features.T)[one, other]
    return float(roc_auc_score(people[one] == people[other], scores))


def test_a_picture_is_the_same_each_time():
    assert demo_face(3, 1, 4, 48).tobytes() == demo_face(3, 1, 4, 48).tobytes()


@pytest.mark.parametrize("other", [(4, 1, 4), (3, 2, 4), (3, 1, 5), (3, 4, 1)])
def test_seed_person_and_image_each_change_the_picture(other):
    assert demo_face(3, 1, 4, 48).tobytes() != demo_face(*other, 48).tobytes()


@pytest.mark.parametrize("size", [32, 57, 96, 160])
def test_pictures_are_rgb_of_the_asked_size(size):
    face = demo_face(0, 0, 0, size)
    assert face.mode == "RGB"
    assert face.size == (size, size)


def test_draw_face_takes_every_picture_from_its_generator():
    traits = draw_traits(0, 0)
    rng = np.random.default_rng(5)
    first, second = draw_face(traits, rng, 48), draw_face(traits, rng, 48)
    assert first.tobytes() != second.tobytes()
    assert first.tobytes() == draw_face(traits, np.random.default_rng(5), 48).tobytes()


def test_people_differ_in_their_traits():
    people = [draw_traits(seed, person) for seed in (0, 1) for person in range(100)]
    assert len(set(people)) == 200
    assert draw_traits(0, 7) == people[7]
    for trait, kinds in (("beard", 4), ("glasses", 3), ("hair", 4)):
        assert len({getattr(person, trait) for person in people}) == kinds


def test_every_part_can_be_drawn():
    # Enough people and pictures to meet every kind of hair, beard, glasses and cover.
    for person in range(120):
        assert np.asarray(demo_face(11, person, 0, 32)).std() > 3


def test_folder_is_laid_out_as_documented(tmp_path):
    out = write(tmp_path / "deep" / "faces", people=3, images=2)
    assert out == tmp_path / "deep" / "faces"
    names = [f"demo_{p:03d}/{i:04d}.jpg" for p in (1, 2, 3) for i in (1, 2)]
    assert sorted(contents(out)) == sorted([".demo.json", *names])
    record = json.loads((out / ".demo.json").read_text())
    assert record == {
        "version": demo.DEMO_VERSION,
        "people": 3,
        "images": 2,
        "size": 32,
        "seed": 0,
    }
    assert [path.name for path in out.parent.iterdir()] == ["faces"]


def test_a_pool_draws_the_same_bytes(tmp_path):
    alone = contents(write(tmp_path / "alone", processes=1))
    assert contents(write(tmp_path / "pool", processes=2)) == alone


def test_pictures_do_not_depend_on_how_many_there_are(tmp_path):
    few = contents(write(tmp_path / "few", people=2, images=2))
    many = contents(write(tmp_path / "many", people=4, images=3))
    del few[".demo.json"]
    assert few.items() <= many.items()


def test_a_set_already_drawn_is_kept(tmp_path, monkeypatch):
    out = write(tmp_path / "faces")
    before = contents(out)
    monkeypatch.setattr(demo, "_draw_person", lambda *_, **__: pytest.fail("drawn again"))
    assert write(out) == out
    assert contents(out) == before


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "faces").mkdir()
    assert len(contents(write(tmp_path / "faces"))) == 7


@pytest.mark.parametrize("other", [{"people": 4}, {"images": 3}, {"size": 40}, {"seed": 1}])
def test_another_demo_set_is_refused_and_left_alone(tmp_path, other):
    out = write(tmp_path / "faces")
    before = contents(out)
    with pytest.raises(UserError, match="faces already holds other demo faces"):
        write(out, **other)
    assert contents(tmp_path) == {f"faces/{name}": data for name, data in before.items()}


def test_an_older_drawing_is_refused(tmp_path, monkeypatch):
    out = write(tmp_path / "faces")
    monkeypatch.setattr(demo, "DEMO_VERSION", demo.DEMO_VERSION + 1)
    with pytest.raises(UserError, match="other demo faces"):
        write(out)


@pytest.mark.parametrize("name", ["notes.txt", ".demo.json"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("not a record")
    with pytest.raises(UserError, match=r"mine already holds .*; name a new folder"):
        write(tmp_path / "mine")
    assert contents(tmp_path) == {f"mine/{name}": b"not a record"}


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "file")
    with pytest.raises(UserError, match="name another folder"):
        write(tmp_path / "file" / "faces")


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def interrupted(seed: int, person: int, image: int, size: int):
        drawn.append(person)
        if len(drawn) > 3:
            raise KeyboardInterrupt
        return demo_face(seed, person, image, size)

    monkeypatch.setattr(demo, "demo_face", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "faces")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", [{"people": 0}, {"images": 0}, {"size": 31}, {"seed": -1}])
def test_too_small_numbers_are_refused(tmp_path, setting):
    (name,) = setting
    with pytest.raises(UserError, match=name):
        write(tmp_path / "faces", **setting)
    assert list(tmp_path.iterdir()) == []


def test_colours_say_little_about_the_person():
    people, images = 30, 12
    pictures = np.stack(
        [np.asarray(demo_face(0, p, i, 64)) for p in range(people) for i in range(images)]
    )
    bins = (pictures // 32).astype(int) @ (64, 8, 1)
    histograms = np.stack([np.bincount(picture.ravel(), minlength=512) for picture in bins])
    owners = np.repeat(np.arange(people), images)
    assert auc_of_cosine(histograms.astype(float), owners) <= 0.70
    assert auc_of_cosine(np.sqrt(histograms), owners) <= 0.70
