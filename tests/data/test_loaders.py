"""Loaders: the same batches from any number of processes, pictures that fail, plain order."""

import os
import pickle
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning.utils import common_functions
from torch.utils.data import BatchSampler

from siamese.config import AugmentSettings
from siamese.data.batches import PKBatches, SampledBatches
from siamese.data.decode import decode
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.kept_pictures import KeptPictures
from siamese.data.labelled_pictures import Pictures, face_pictures, thumbnail
from siamese.data.loaders import Batch, default_workers, evaluation_loader, training_loader
from siamese.data.transforms import Preprocess, augmentation
from siamese.errors import lack
from tests.runs import full_disk

SIZE = 16


def scan(root: Path) -> FaceFolder:
    return scan_folder(root, progress=False)


def truncate(path: Path) -> None:
    """Leave the header whole, so that only decoding finds the damage."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:6000])


def training_pictures(folder: FaceFolder, **augment) -> Pictures:
    settings = AugmentSettings(**augment)
    return face_pictures(
        folder, Preprocess(SIZE, "squash"), SIZE, augment=augmentation(settings, SIZE)
    )


def train_batches(
    folder: FaceFolder, *, workers: int = 0, people: int = 3, images: int = 2, epoch: int = 0
) -> list[Batch]:
    batches = PKBatches(folder.labels, people, images, seed=7)
    batches.start_epoch(epoch)
    loader = training_loader(training_pictures(folder), batches, workers=workers, pin_memory=False)
    return list(loader)


def evaluation_batches(folder: FaceFolder, *, workers: int = 0, batch_size: int = 5) -> list[Batch]:
    return list(
        evaluation_loader(
            folder, Preprocess(SIZE, "squash"), SIZE, batch_size=batch_size, workers=workers
        )
    )


def set_random_states(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed)


def random_states() -> list[object]:
    pml = common_functions.NUMPY_RANDOM.get_state()
    return [str(np.random.get_state()), str(pml), torch.get_rng_state().tolist()]


@pytest.fixture
def _pml_generator(monkeypatch):
    monkeypatch.setattr(common_functions, "NUMPY_RANDOM", common_functions.NUMPY_RANDOM)


@pytest.mark.usefixtures("_pml_generator")
def test_global_random_states_neither_matter_nor_move():
    orders = []
    for seed in (1, 2):
        set_random_states(seed)
        before = random_states()
        orders.append(list(PKBatches([0, 0, 0, 1, 1, 2, 2, 2], 2, 2, seed=1)))
        assert random_states() == before
    assert orders[0] == orders[1]


@pytest.mark.usefixtures("_pml_generator")
@pytest.mark.parametrize("workers", [0, 1])
def test_loading_moves_no_random_state(face_folder, workers):
    set_random_states(5)
    before = random_states()
    train_batches(scan(face_folder), workers=workers)
    evaluation_batches(scan(face_folder), workers=workers)
    assert random_states() == before


def assert_equal_batches(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices)
        assert a.failed == b.failed


def test_pixels_do_not_depend_on_the_number_of_workers(face_folder):
    truncate(face_folder / "Ann" / "1.png")
    folder = scan(face_folder)
    assert_equal_batches(train_batches(folder, workers=0), train_batches(folder, workers=2))
    assert_equal_batches(
        evaluation_batches(folder, workers=0), evaluation_batches(folder, workers=2)
    )


def test_a_training_batch(face_folder):
    folder = scan(face_folder)
    first = train_batches(folder)[0]
    assert first.images.shape == (6, 3, SIZE, SIZE)
    assert first.images.dtype == torch.uint8
    assert first.labels.tolist() == [folder.labels[at] for at in first.indices]
    assert first.failed == []


def test_a_picture_drawn_again_is_augmented_differently(face_folder):
    pictures = training_pictures(scan(face_folder))
    batches = PKBatches(pictures.labels, 2, 2, seed=7)
    first, second = next(iter(batches))[:2]
    again = first._replace(seed=second.seed)
    assert torch.equal(pictures[first].image, pictures[first].image)
    assert not torch.equal(pictures[first].image, pictures[again].image)


def test_evaluation_gives_every_picture_in_order_unaugmented(face_folder):
    folder = scan(face_folder)
    batches = evaluation_batches(folder)
    assert [len(batch.labels) for batch in batches] == [5] * 7 + [1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(36))
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(folder.labels)
    prepare = Preprocess(SIZE, "squash")
    with Image.open(face_folder / folder.paths[7]) as image:
        assert torch.equal(batches[1].images[2], prepare(image))


def test_in_training_another_picture_of_the_person_takes_the_place(face_folder):
    truncate(face_folder / "Ann" / "1.png")
    folder = scan(face_folder)
    broken = folder.paths.index("Ann/1.png")
    pictures = training_pictures(folder, flip=0.0, crop_scale=None)
    batches = PKBatches(folder.labels, 6, 6)
    loaded = list(training_loader(pictures, batches, workers=0, pin_memory=False))
    for draws, batch in zip(batches, loaded, strict=True):
        drawn = [draw.picture for draw in draws]
        assert len(batch.labels) == 36
        assert broken in drawn
        assert broken not in batch.indices
        assert [folder.labels[at] for at in batch.indices] == batch.labels.tolist()
        assert batch.labels.tolist() == [folder.labels[at] for at in drawn]
        assert len(batch.failed) == 1
        path, reason = batch.failed[0]
        assert path == "Ann/1.png"
        assert "cannot be decoded" in reason
        clean = evaluation_batches(folder, batch_size=36)[0]
        shown = dict(zip(clean.indices.tolist(), clean.images, strict=True))
        for at, image in zip(batch.indices.tolist(), batch.images, strict=True):
            assert torch.equal(image, shown[at])


def test_a_person_without_a_whole_picture_is_not_in_the_batch(face_folder):
    for picture in (face_folder / "Ann").iterdir():
        truncate(picture)
    folder = scan(face_folder)
    batch = train_batches(folder, people=6, images=2)[0]
    assert len(batch.labels) == len(batch.images) == 10
    assert folder.names.index("Ann") not in batch.labels
    assert {path for path, _ in batch.failed} == {f"Ann/{i}.png" for i in range(6)}


def test_in_evaluation_a_broken_picture_is_left_out_and_reported(face_folder):
    truncate(face_folder / "Ann" / "1.png")
    folder = scan(face_folder)
    broken = folder.paths.index("Ann/1.png")
    batches = evaluation_batches(folder)
    indices = torch.cat([batch.indices for batch in batches]).tolist()
    assert indices == [at for at in range(36) if at != broken]
    assert [path for batch in batches for path, _ in batch.failed] == ["Ann/1.png"]


def test_a_batch_may_be_empty(face_folder):
    for person in face_folder.iterdir():
        for picture in person.iterdir():
            truncate(picture)
    folder = scan(face_folder)
    for batch in (*train_batches(folder), *evaluation_batches(folder)):
        assert len(batch.images) == len(batch.labels) == len(batch.indices) == 0
        assert batch.images.shape[1] == 3
        assert batch.failed


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_default_workers_fit_the_machine(device):
    assert 1 <= default_workers(device) <= 8


def test_a_thumbnail_is_small_and_square(face_folder):
    assert thumbnail(face_folder / "Ann" / "0.png", 12).size == (12, 12)


# Their end is an error in the training process, which would otherwise wait for ever.
@pytest.mark.parametrize(("workers", "shared"), [(0, False), (2, True)])
def test_batches_of_loader_processes_are_shared_as_they_are_collated(face_folder, workers, shared):
    pictures = training_pictures(scan(face_folder))
    batches = PKBatches(pictures.labels, 2, 2, seed=7)
    loader = training_loader(pictures, batches, workers=workers, pin_memory=False)
    batch = loader.collate_fn([pictures[draw] for draw in next(iter(batches))])
    assert [t.is_shared() for t in (batch.images, batch.labels, batch.indices)] == [shared] * 3


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_a_full_shared_memory_is_an_error(face_folder, part):
    """On a real limit of the system; an endless wait ends here, too."""
    folder = scan(face_folder)

    def give_up(number, frame):
        raise TimeoutError("waited for a batch that never comes")

    before = signal.signal(signal.SIGALRM, give_up)
    load = train_batches if part == "training" else evaluation_batches
    signal.alarm(60)
    try:
        with full_disk(2**11), pytest.raises(RuntimeError) as caught:  # a batch has over 3 KB
            load(folder, workers=1)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert "shared memory" in (lack(caught.value) or "")


def test_loaders_of_a_training_outlive_a_first_sigterm(face_folder):
    def terminated(batch: Batch) -> Batch:
        os.kill(os.getpid(), signal.SIGTERM)
        return batch

    def loaded(patient: bool) -> list[Batch]:
        folder, prepare = scan(face_folder), Preprocess(SIZE, "squash")
        options: dict[str, Any] = {"batch_size": 36, "workers": 1, "patient": patient}
        return list(evaluation_loader(folder, prepare, SIZE, then=terminated, **options))

    assert [len(batch.images) for batch in loaded(True)] == [36]
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        loaded(False)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kept", [3, 36])
def test_pictures_are_decoded_once_as_far_as_there_is_room(
    face_folder, tmp_path, kept, workers, monkeypatch
):
    log = tmp_path / "decoded"

    def noted(path: Path, size: int) -> Image.Image:
        with open(log, "a") as file:  # by whichever process
            file.write(f"{path}\n")
        return decode(path, size)

    monkeypatch.setattr("siamese.data.labelled_pictures.decode", noted)
    folder = scan(face_folder)
    room = (kept + 1) * (3 * SIZE * SIZE + 1) - 1

    def drawn(number: int, **options: Any) -> list[Batch]:
        """That many epochs of all pictures, changed as a program's own augmentation might."""
        batches = SampledBatches(BatchSampler(range(36), 4, drop_last=True), 4)
        pictures = face_pictures(
            folder, Preprocess(SIZE, "squash"), SIZE, augment=torch.Tensor.neg_, **options
        )
        loader = training_loader(pictures, batches, workers=workers, pin_memory=False)
        return [batch for _ in range(number) for batch in loader]

    expected = drawn(1)
    log.unlink()
    found = drawn(3, kept=KeptPictures(36, SIZE, room, shared=workers > 1))
    times = Counter(log.read_text().splitlines())
    assert [times[str(folder.root / path)] for path in folder.paths] == [1] * kept + [3] * (
        36 - kept
    )
    for epoch in range(3):
        assert_equal_batches(found[9 * epoch : 9 * (epoch + 1)], expected)


@pytest.mark.parametrize("pictures", [0, 1, 2**50])
def test_pictures_are_kept_nowhere_where_there_is_no_memory(pictures):
    kept = KeptPictures(pictures, SIZE, 0 if pictures == 1 else 2**60)
    picture = torch.full((3, SIZE, SIZE), 7, dtype=torch.uint8)
    assert kept.read(lambda position: picture, 0) is picture
    assert kept.read(lambda position: picture, 0) is picture


def test_a_process_that_is_not_forked_begins_with_memory_of_its_own():
    kept = KeptPictures(2, SIZE, 10**6, shared=True)
    picture = torch.full((3, SIZE, SIZE), 7, dtype=torch.uint8)
    kept.read(lambda position: picture, 1)
    other = pickle.loads(pickle.dumps(kept))
    with pytest.raises(ZeroDivisionError):
        other.read(lambda position: 1 / 0, 1)
    assert torch.equal(kept.read(lambda position: 1 / 0, 1), picture)
