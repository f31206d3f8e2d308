"""The embedder for use: files, pictures, arrays and tensors of any size give the same."""

from collections.abc import Iterator
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
from siamese.models.checkpoint import KEYS, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.report.embedding_sources import embed_people
from siamese.verification.counts import count_pairs
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
    own = Embedder.load(checkpoint, "cpu", **options).embed(face_folder / p for p in judged.paths)
    _close(own, judged.embeddings)
    assert own.shape == (len(files), 8)
    assert own.dtype == torch.float32


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
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=kind)
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
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=kind)
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


def test_runs_in_eval_mode_without_gradients_and_gives_plain_tensors(
    embedder: Embedder, files: list[Path]
) -> None:
    first = embedder.embed(files)
    embedder.network.train()
    torch.testing.assert_close(embedder.embed(files), first)
    assert not first.requires_grad
    head = torch.nn.Linear(8, 2)
    head(first).sum().backward()  # an inference tensor would refuse
    assert head.weight.grad is not None


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
        (np.zeros((3, 40, 50), np.uint8), r"array 3x40x50: must be .*channels come first"),
        (torch.zeros(40, 50, 3, dtype=torch.uint8), r"tensor 40x50x3: .*channels come last"),
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


def test_bad_options_are_told(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="batch 0"):
        Embedder.load(checkpoint, "cpu", batch=0)
    with pytest.raises(UserError, match=r"crop 1\.5"):
        Embedder.load(checkpoint, "cpu", crop=1.5)


def test_the_network_inside_refuses_what_is_not_prepared(embedder: Embedder) -> None:
    with pytest.raises(UserError, match=r"48 x 40 pixels.*made for 32 x 32"):
        embedder.network(torch.zeros(1, 3, 40, 48, dtype=torch.uint8))
