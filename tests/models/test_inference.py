"""The embedder for use: files, pictures, arrays and tensors of any size give the same."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import Embedder, load_embedder
from siamese.config import EmbedSettings
from siamese.data.decode import DecodeError, decode
from siamese.errors import UserError
from siamese.models.checkpoint import KEYS, read_checkpoint, update_checkpoint, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.fingerprint import fingerprint
from siamese.report.embedding_sources import embed_people
from siamese.verification.calibration import Calibration
from siamese.verification.counts import count_pairs
from siamese.verification.decision import Decision
from siamese.verification.metrics import summarise

SIZE = 32  # the pictures have 40 x 48 pixels
MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)


@pytest.fixture(params=["squash", "crop"])
def checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An embedder whose preprocessing has nothing usual."""
    torch.manual_seed(0)
    model = SiameseEmbedder("test_resnet", 8, mean=MEAN, std=STD, size=SIZE)
    model.train()(torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8))
    content: dict[str, Any] = {key: {} for key in KEYS}
    content |= {
        "model": model.state_dict(),
        "embedder": EmbedderSpec("test_resnet", 8, SIZE, request.param, MEAN, STD).as_dict(),
        "train_weights": [],
        "progress": {"epoch": 1},
        "split": {"train": {"folder": "faces", "pictures": 0, "identities": []}},
    }
    write_checkpoint(tmp_path / "run" / "best.pt", content)
    return tmp_path / "run" / "best.pt"


@pytest.fixture
def embedder(checkpoint: Path) -> Embedder:
    return load_embedder(checkpoint, device="cpu")


@pytest.fixture
def files(face_folder: Path) -> list[Path]:
    return sorted(face_folder.glob("*/*.png"))


def _close(a: Any, b: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"crop": 30.0}, {"crop": 0.6}])
def test_files_are_embedded_as_the_commands_do(
    checkpoint: Path, face_folder: Path, files: list[Path], options: dict[str, Any]
) -> None:
    settings = EmbedSettings(
        checkpoint=str(checkpoint), data=str(face_folder), device="cpu", workers=0, **options
    )
    judged = embed_people(settings)
    assert judged.paths is not None
    model = Embedder.load(checkpoint, "cpu", **options)
    expected = judged.embeddings.tobytes()
    assert model.embed(face_folder).tobytes() == expected
    assert model.embed(str(face_folder)).tobytes() == expected
    assert model.embed(face_folder / path for path in judged.paths).tobytes() == expected
    assert model.embed([str(face_folder / path) for path in judged.paths]).tobytes() == expected
    found = model.embed_folder(face_folder, workers=1)
    assert found.vectors.tobytes() == expected
    assert found.labels is not None
    assert found.labels.tolist() == judged.labels.tolist()
    assert (found.names, found.paths) == (judged.names, judged.paths)
    assert found.vectors.shape == (len(files), 8)
    assert found.vectors.dtype == np.float32
    assert type(found.vectors) is np.ndarray


def test_a_model_takes_the_centre_that_it_was_trained_on(
    checkpoint: Path, face_folder: Path, files: list[Path], tmp_path: Path
) -> None:
    plain = load_embedder(checkpoint, "cpu")
    content = read_checkpoint(checkpoint)
    content["embedder"]["crop"] = 0.6
    cropping = tmp_path / "cropping" / "best.pt"
    write_checkpoint(cropping, content)
    centres = []
    for file in files:  # 40 x 48 pixels: the middle 24 x 24
        centres.append(decode(file).crop((8, 12, 32, 36)))
    expected = plain.embed(centres)
    own = Embedder.load(cropping, "cpu")
    assert own.crop == own.spec.crop == 0.6
    assert own.fingerprint != plain.fingerprint
    assert own.embed(face_folder).tobytes() == expected.tobytes()
    assert Embedder.load(checkpoint, "cpu", crop=0.6).embed(files).tobytes() == expected.tobytes()
    whole = Embedder.load(cropping, "cpu", crop="whole")
    assert whole.crop is None
    assert whole.embed(files).tobytes() == plain.embed(files).tobytes() != expected.tobytes()
    other = Embedder.load(cropping, "cpu", crop=30).embed(files)
    assert other.tobytes() == Embedder.load(checkpoint, "cpu", crop=30).embed(files).tobytes()
    settings = EmbedSettings(
        checkpoint=str(cropping), data=str(face_folder), device="cpu", workers=0
    )
    assert embed_people(settings).embeddings.tobytes() == expected.tobytes()
    judged = embed_people(replace(settings, crop="whole")).embeddings
    assert judged.tobytes() == plain.embed(files).tobytes()


def test_files_without_a_crop_are_as_they_were(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    assert "crop" not in content["embedder"]
    assert load_embedder(checkpoint, "cpu").crop is None
    spec = EmbedderSpec("test_resnet", 8, 32, "crop", MEAN, STD)
    told = '{"backbone": "test_resnet", "color_order": "RGB", "embedding_dim": 8, "fit": "crop", '
    told += '"mean": [0.4, 0.45, 0.5], "size": 32, "std": [0.2, 0.25, 0.3]}'
    assert fingerprint(spec, {}) == hashlib.sha256(told.encode()).hexdigest()


@pytest.mark.parametrize("crop", [1.0, 0, -0.5, "0.5", True, math.nan, [0.5]])
def test_a_damaged_crop_is_refused(checkpoint: Path, crop: Any) -> None:
    content = read_checkpoint(checkpoint)
    content["embedder"]["crop"] = crop
    write_checkpoint(checkpoint, content)
    with pytest.raises(UserError, match=r"damaged.*embedder\.crop"):
        load_embedder(checkpoint, "cpu")


def _kinds(files: list[Path]) -> dict[str, Any]:
    pictures = [decode(file) for file in files]
    arrays = [np.asarray(picture) for picture in pictures]
    batch = np.stack(arrays)
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    return {
        "texts": [str(file) for file in files],
        "pictures": pictures,
        "opened pictures": [Image.open(file) for file in files],
        "arrays": arrays,
        "batch": batch,
        "float arrays": [array / 255 for array in arrays],
        "float32 batch": batch.astype(np.float32) / 255,
        "float16 batch": (batch / 255).astype(np.float16),
        "tensors": list(tensors),
        "tensor batch": tensors,
        "float tensors": tensors.float() / 255,
        "with gradient": (tensors.double() / 255).requires_grad_(),
        "generator": (array for array in arrays),
        "mixed": [*files[:2], *pictures[2:4], *arrays[4:6], *tensors[6:]],
        "transparent": np.concatenate([batch, np.full_like(batch[..., :1], 255)], axis=-1),
        "strided": [np.asfortranarray(array) for array in arrays],
    }


def test_pictures_of_another_size_give_what_their_files_give(
    embedder: Embedder, files: list[Path]
) -> None:
    """Fed to the network as they were, they gave an AUC of 0.599 instead of 0.894."""
    expected = embedder.embed(files)
    for kind, given in _kinds(files).items():
        found = embedder.embed(given)
        assert found.shape == (len(files), 8), kind
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=kind)
    labels = [file.parent.name for file in files]
    people = np.unique(labels, return_inverse=True)[1]
    by_files = summarise(count_pairs(expected, people))
    by_arrays = summarise(count_pairs(embedder.embed(_kinds(files)["batch"]), people))
    assert by_arrays["auc"] == pytest.approx(by_files["auc"], abs=1e-3)


def test_each_of_one_is_one_row(embedder: Embedder, files: list[Path]) -> None:
    expected = embedder.embed(files)[:1]
    for kind, given in _kinds(files[:1]).items():
        if isinstance(given, list):
            found = embedder(given[0])
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=kind)
    assert embedder.embed([]).shape == (0, 8)
    assert embedder.embed(np.zeros((0, 5, 5, 3), np.uint8)).shape == (0, 8)


def test_sizes_may_differ_and_grey_is_taken(embedder: Embedder) -> None:
    draw = np.random.default_rng(0)
    given = [draw.integers(0, 256, (h, w), np.uint8) for h, w in ((9, 200), (64, 64), (1, 1))]
    grey = embedder.embed(given)
    _close(embedder.embed([array[..., None] for array in given]), grey)
    _close(embedder.embed([torch.from_numpy(array) for array in given]), grey)
    _close(embedder.embed([np.stack([array] * 3, axis=-1) for array in given]), grey)


def test_a_turned_picture_is_put_upright(
    embedder: Embedder, files: list[Path], tmp_path: Path
) -> None:
    image = Image.open(files[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    _close(embedder.embed(tmp_path / "turned.png"), embedder.embed(files[0]))
    _close(embedder.embed(Image.open(tmp_path / "turned.png")), embedder.embed(files[0]))


def test_runs_in_eval_mode_and_gives_arrays_that_may_be_changed(
    embedder: Embedder, files: list[Path]
) -> None:
    first = embedder.embed(files)
    embedder.network.train()
    assert np.array_equal(embedder.embed(files), first)
    first += 1


def test_a_generator_is_read_batch_by_batch(checkpoint: Path, files: list[Path]) -> None:
    small = Embedder.load(checkpoint, "cpu", batch=4)
    read, most = [0], [0]
    forward = small.network.forward

    def watched(images: torch.Tensor) -> torch.Tensor:
        most[0] = max(most[0], len(images))
        assert read[0] - seen[0] <= 4  # what was read and is not embedded yet
        seen[0] += len(images)
        return forward(images)

    seen = [0]
    small.network.forward = watched  # type: ignore[method-assign]

    def one_by_one() -> Iterator[Path]:
        for file in files:
            read[0] += 1
            yield file

    _close(small.embed(one_by_one()), load_embedder(checkpoint, "cpu").embed(files))
    assert most[0] == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 40, 50), np.uint8), r"array 3x40x50: must be .*transpose it"),
        (torch.zeros(40, 50, 3, dtype=torch.uint8), r"tensor 40x50x3: .*transpose it"),
        (np.zeros((4, 4, 3)) + 1.5, r"floats from 1\.5 to 1\.5: must lie in 0 to 1"),
        (np.full((4, 4, 3), np.nan), "must lie in 0 to 1"),
        (torch.randn(3, 8, 8), "must lie in 0 to 1 .*normalised"),
        (np.zeros((4, 4, 3), np.int64), "type int64: must be uint8"),
        (np.zeros((0, 4, 3), np.uint8), "without pixels"),
        (np.zeros(7, np.uint8), "array 7: must be"),
        (7, "int: no picture"),
        (b"bytes", "bytes: no picture"),
        (None, "NoneType: no picture"),
        ([np.zeros((4, 4, 3), np.uint8), 3], "picture 1: int: no picture"),
        ([[np.zeros((4, 4, 3), np.uint8)]], "picture 0: list: no picture"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3))+9], "picture 1: floats from 9 to 9"),
        ("nowhere.png", r"nowhere\.png: cannot be decoded"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_told(embedder: Embedder, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        embedder.embed(given)


def test_a_broken_file_is_named(embedder: Embedder, files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:200])
    with pytest.raises(DecodeError, match=r"broken\.png: cannot be decoded"):
        embedder.embed([files[1], broken])
    with pytest.raises(DecodeError, match=r"broken\.png: cannot be decoded"):
        embedder.embed(Image.open(broken))


def test_a_folder_of_pictures_is_embedded_in_order_of_names(
    embedder: Embedder, files: list[Path], tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for name, file in zip("bac", files, strict=False):
        (flat / f"{name}.png").write_bytes(file.read_bytes())
    (flat / "notes.txt").write_text("no picture")
    (flat / ".hidden.png").write_text("no picture")
    found = embedder.embed_folder(flat)
    assert found.paths == ("a.png", "b.png", "c.png")
    assert (found.labels, found.names) == (None, ())
    assert [item.path for item in found.left_out] == ["notes.txt"]
    assert np.array_equal(found.vectors, embedder.embed([files[1], files[0], files[2]]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no picture in it"):
        embedder.embed(tmp_path / "empty")


@pytest.mark.parametrize("kept", [5, 200])  # bytes: not even a header; half of the pixels
@pytest.mark.parametrize("nested", [True, False])
def test_a_broken_picture_of_a_folder_is_named_or_skipped(
    embedder: Embedder, face_folder: Path, kept: int, nested: bool
) -> None:
    folder = face_folder if nested else next(face_folder.iterdir())
    files = sorted(folder.rglob("*.png"))
    broken = files.pop(2)
    broken.write_bytes(broken.read_bytes()[:kept])
    for embed in (embedder.embed, embedder.embed_folder):
        with pytest.raises(DecodeError) as caught:
            embed(folder)
        assert str(caught.value).count(f"{broken}: cannot be decoded") == 1
    found = embedder.embed_folder(folder, skip_broken=True)
    assert [folder / path for path in found.paths] == files
    assert [folder / item.path for item in found.left_out] == [broken]
    _close(found.vectors, embedder.embed(files))


def test_a_run_is_found_by_its_file_folder_and_name(checkpoint: Path) -> None:
    runs = checkpoint.parents[1]
    for given in (checkpoint, str(checkpoint), checkpoint.parent, "run"):
        assert Embedder.load(given, "cpu", checkpoints=runs).dimensions == 8
    with pytest.raises(UserError, match=r"walk: no such checkpoint.*latest runs there: run"):
        Embedder.load("walk", "cpu", checkpoints=runs)


def test_verification_is_the_score_of_the_commands(embedder: Embedder, files: list[Path]) -> None:
    a, b = (vector.astype(np.float64) for vector in embedder.embed(files[:2]))
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    found = embedder.verify(files[0], str(files[1]))
    assert found.score == pytest.approx(cosine, abs=1e-5)
    assert (found.threshold, found.same, found.probability) == (None, None, None)
    assert embedder.verify(files[0], Image.open(files[0])).score == pytest.approx(1, abs=1e-6)
    with pytest.raises(UserError, match="`prior` 1: must lie above 0 and below 1"):
        embedder.verify(files[0], files[1], prior=1)
    with pytest.raises(UserError, match="3 pictures: two are compared"):
        embedder.verify(files[0], np.zeros((2, 9, 9, 3), np.uint8))


def test_pictures_are_mirrored_unless_the_threshold_was_chosen_without(
    checkpoint: Path, files: list[Path]
) -> None:
    averaged, bare = (
        Embedder.load(checkpoint, "cpu", flip=flip).embed(files[:3]) for flip in (True, False)
    )
    assert not np.allclose(averaged, bare, atol=1e-3)
    np.testing.assert_array_equal(Embedder.load(checkpoint, "cpu").embed(files[:3]), averaged)
    decision = Decision(0.5, 0.05, Calibration(4.0, -2.0), False, {"origin": "ten people"}, {})
    update_checkpoint(checkpoint, "decision", decision.as_dict())
    np.testing.assert_array_equal(Embedder.load(checkpoint, "cpu").embed(files[:3]), bare)


def test_verification_decides_as_it_was_chosen(checkpoint: Path, files: list[Path]) -> None:
    bare = Embedder.load(checkpoint, "cpu", flip=True).verify(files[0], files[1]).score
    for threshold, same in ((bare - 1e-3, True), (bare + 1e-3, False)):
        decision = Decision(
            threshold, 0.05, Calibration(4.0, -2.0), True, {"origin": "ten people"}, {}
        )
        update_checkpoint(checkpoint, "decision", decision.as_dict())
        found = Embedder.load(checkpoint, "cpu").verify(files[0], files[1], prior=0.1)
        assert found.score == bare  # with the mirrored pictures, as the threshold was chosen
        odds = math.exp(4 * bare - 2) * 0.1 / 0.9
        assert found.probability == pytest.approx(odds / (1 + odds))
        assert (found.threshold, found.same) == (threshold, same)
        assert (found.target_fmr, found.threshold_from) == (0.05, "ten people")
    update_checkpoint(checkpoint, "decision", {"threshold": "high"})
    with pytest.raises(UserError, match=r"best\.pt: is damaged, its threshold"):
        Embedder.load(checkpoint, "cpu")


def test_bad_options_are_told(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="`batch` 0"):
        Embedder.load(checkpoint, "cpu", batch=0)
    with pytest.raises(UserError, match=r"`crop` 1\.5"):
        Embedder.load(checkpoint, "cpu", crop=1.5)
    with pytest.raises(UserError, match=r"`crop` centre: must be .* or whole"):
        Embedder.load(checkpoint, "cpu", crop="centre")  # type: ignore[arg-type]


def test_the_network_inside_refuses_what_is_not_prepared(embedder: Embedder) -> None:
    with pytest.raises(UserError, match=r"48 x 40 pixels.*made for 32 x 32"):
        embedder.network(torch.zeros(1, 3, 40, 48, dtype=torch.uint8))
