"""What a run costs before it is run: multiply-accumulates, and the time they take here."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from siamese.config import DEMO_IMAGES, DEMO_PEOPLE, ClassificationSettings, TrainSettings
from siamese.errors import UserError
from siamese.studies.expand import Run

# Training and test images, classes, channels and side of the sets of torchvision.
_SETS = {
    "cifar10": (50_000, 10_000, 10, 3, 32),
    "cifar100": (50_000, 10_000, 100, 3, 32),
    "mnist": (60_000, 10_000, 10, 1, 28),
    "fashion_mnist": (60_000, 10_000, 10, 1, 28),
    "kmnist": (60_000, 10_000, 10, 1, 28),
}
# A training step costs a forward pass and, for the gradients, about two more.
_STEP = 3
_PROBE = ("preact20", 64)  # network and batch that the machine's speed is measured with


@dataclass(frozen=True)
class Cost:
    """What a run costs; None where it cannot be known yet.

    Attributes:
        parameters: of the network.
        macs: multiply-accumulates of one image's forward pass.
        total: multiply-accumulates of the whole run, data and judging metrics left out.
    """

    parameters: int | None
    macs: int | None
    total: float | None


def run_cost(run: Run) -> Cost:
    """The cost of a run: three forward passes per training image, one per judged image.

    Raises:
        UserError: an unknown network or option.
    """
    settings = run.settings
    if isinstance(settings, ClassificationSettings):
        parameters, macs, seen = _classification(settings)
    else:
        parameters, macs, seen = _faces(settings)
    total = None if macs is None or seen is None else float(macs) * seen
    return Cost(parameters, macs, total)


_Counts = tuple[int | None, int | None, float | None]  # parameters, MACs, images seen forward


def _classification(settings: ClassificationSettings) -> _Counts:
    data, model = settings.data, settings.model
    if data.name == "folder":
        train, test, classes, side = _class_folder(data.root)
        channels = 3
    else:
        train, test, classes, channels, side = _SETS[data.name]
    options = json.dumps(model.options, sort_keys=True)
    size = data.size or side
    parameters, macs = _network(model.name, options, model.drop_path, classes, channels, size)
    if not train:
        return parameters, macs, None
    validation = data.validation if data.validation >= 1 else data.validation * train
    images = min(train - validation, data.subset or train)
    tested = min(test, data.test_subset or test) if settings.trainer.test_curve else 0
    views = 2 if settings.augment.dual_cutout else 1
    epochs = settings.trainer.epochs
    judgements = -(-epochs // settings.trainer.validate_every)
    seen = epochs * _STEP * images * views + judgements * (validation + tested)
    return parameters, macs, seen


def _faces(settings: TrainSettings) -> _Counts:
    model, split = settings.model, settings.split
    parameters, macs = _network(
        model.backbone, "{}", model.drop_path, model.embedding_dim, 3, settings.images.size
    )
    people, pictures = _face_folder(settings.data)
    if not people:
        return parameters, macs, None
    shares = [share if share < 1 else share / people for share in (split.validation, split.test)]
    if split.lists is not None:
        listed = _listed(split.lists)
        pictures = sum(listed.values())
        shares = [listed.get(part, 0) / max(pictures, 1) for part in ("validation", "test")]
    drawn = settings.batches.images_per_epoch or max(0.0, 1 - sum(shares)) * pictures
    judged = shares[0] + (shares[1] if settings.trainer.test_curve else 0)
    return parameters, macs, settings.trainer.epochs * (_STEP * drawn + judged * pictures)


@cache
def _class_folder(root: str) -> tuple[int, int, int, int]:
    """Training and test images, classes and customary side; no images where nothing lies yet."""
    from siamese.tasks.classes.datasets import scan_part

    try:
        train, test = scan_part(root, "train"), scan_part(root, "test")
    except UserError:
        return 0, 0, 1000, 224
    return len(train), len(test), len(train.classes), 224


@cache
def _listed(lists: str) -> dict[str, int]:
    """Pictures of each part; none where no lists lie yet."""
    from siamese.data.split_lists import listed_numbers

    try:
        return listed_numbers(Path(lists))
    except UserError:
        return {}


@cache
def _face_folder(data: str | None) -> tuple[int, int]:
    """People and pictures; none where nothing lies yet."""
    if data is None:
        return DEMO_PEOPLE, DEMO_PEOPLE * DEMO_IMAGES
    from siamese.data.folder import scan_folder

    try:
        folder = scan_folder(Path(data))
    except UserError:
        return 0, 0
    return len(folder.names), len(folder.paths)


@cache
def _network(
    name: str, options: str, drop_path: float, classes: int, channels: int, size: int
) -> tuple[int | None, int | None]:
    """Parameters and multiply-accumulates of a network, by its name."""
    from siamese.zoo import count_cost, create_network, presets

    name = name.removeprefix("zoo/")  # as faces name a preset
    known = name.startswith("timm/") or any(preset.name == name for preset in presets())
    if not known and _is_timm(name):  # as faces name it
        name = f"timm/{name}"
    network = create_network(
        name,
        num_classes=classes,
        in_channels=channels,
        image_size=size,
        drop_path=drop_path,
        **json.loads(options),
    )
    try:
        return count_cost(network, channels, size)
    except (RuntimeError, NotImplementedError):  # a model that the meta device cannot run
        return sum(parameter.numel() for parameter in network.parameters()), None


def _is_timm(name: str) -> bool:
    import timm

    return bool(timm.is_model(name.split(".")[0]))


@cache
def machine_speed(device: str, threads: int | None = None) -> float:
    """Multiply-accumulates per second of a training step here, from a probe of about a second.

    Args:
        device: as ``--device``.
        threads: CPU threads; None: torch's own choice.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from siamese.models.device import choose_device
    from siamese.zoo import count_cost, create_network

    place = choose_device(device)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    name, batch = _PROBE
    try:
        network = create_network(name).to(place).train()
        images = torch.zeros(batch, 3, 32, 32, device=place)
        labels = torch.zeros(batch, dtype=torch.int64, device=place)
        best = float("inf")
        for _ in range(3):  # the first one warms up
            started = time.perf_counter()
            loss = cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    _, macs = count_cost(network, 3, 32)
    return _STEP * macs * batch / best
