"""What the decoded cache gains, as ratios, in one run: loading, a training epoch, embedding.

    .venv/bin/python scripts/bench_cache.py --data faces/ [--size 64 96 224] [--pictures 2000] ...

Each is done with and without the cache, in turns; the first round warms up. Loading: pictures per
second of the training loader alone, augmentation included. Training: those of whole steps (load,
forward, loss, backward, optimizer). Embedding: those of every picture once, in order. The cache is
built in a temporary folder beforehand; how fast that goes is told, too. The line "reading" is the
processor time of one picture without any augmentation, which other work on the machine moves least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, see cli/parsing.py

import torch

from siamese.config import AugmentSettings, LossSettings
from siamese.data.batches import PKBatches
from siamese.data.cache import PictureCache, open_cache
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.labelled_pictures import face_pictures
from siamese.data.loaders import Batch, default_workers, evaluation_loader, training_loader
from siamese.data.transforms import Preprocess, augmentation
from siamese.models.device import autocast, choose_device, choose_precision
from siamese.models.embedder import SiameseEmbedder
from siamese.models.embedding import embed
from siamese.tasks.faces.metric_losses import MetricLoss


class _Bench:
    """One size: the same work with any cache, or with none."""

    def __init__(self, folder: FaceFolder, size: int, arguments: argparse.Namespace):
        self.folder, self.size = folder, size
        self.device = choose_device(arguments.device)
        self.precision = choose_precision("auto", self.device)
        given = arguments.workers
        self.workers = default_workers(self.device.type) if given is None else given
        self.prepare = Preprocess(size, "squash")
        self.augment = augmentation(AugmentSettings(), size)
        self.batches = PKBatches(folder.labels, arguments.people, arguments.images)
        model = SiameseEmbedder(arguments.backbone, 128)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.loss = MetricLoss(LossSettings(), len(folder.names), 128).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4)

    def read(self, cache: PictureCache | None) -> float:
        """Processor time of one picture in this process, in ms."""
        pictures = face_pictures(self.folder, self.prepare, self.size, cache)
        started = time.process_time()
        for index in range(len(pictures)):
            pictures[index]
        return 1e3 * (time.process_time() - started) / len(pictures)

    def load(self, cache: PictureCache | None) -> int:
        """The training loader alone; returns the pictures it gave."""
        return sum(len(batch.labels) for batch in self._drawn(cache))

    def train(self, cache: PictureCache | None) -> int:
        """A training epoch."""
        self.model.train()
        pictures = 0
        for batch in self._drawn(cache):
            with autocast(self.device, self.precision):
                embeddings = self.model(batch.images.to(self.device, non_blocking=True))
            self.loss(embeddings, batch.labels.to(self.device)).backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            pictures += len(batch.labels)
        self._settle()
        return pictures

    def embed(self, cache: PictureCache | None) -> int:
        """Every picture once."""
        loader = evaluation_loader(
            self.folder, self.prepare, self.size, batch_size=128, workers=self.workers, cache=cache
        )
        found, _ = embed(self.model, loader, device=self.device, precision=self.precision)
        return len(found)

    def _drawn(self, cache: PictureCache | None) -> Iterable[Batch]:
        pictures = face_pictures(self.folder, self.prepare, self.size, cache, augment=self.augment)
        pinned = self.device.type == "cuda"
        return training_loader(pictures, self.batches, workers=self.workers, pin_memory=pinned)

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def speed(work: Callable[[PictureCache | None], int], cache: PictureCache | None) -> float:
    """Pictures per second."""
    started = time.perf_counter()
    pictures = work(cache)
    return pictures / (time.perf_counter() - started)


def compare(
    name: str, work: Callable[[PictureCache | None], int], cache: PictureCache, rounds: int
) -> None:
    """Take turns and tell the medians; the first round is not counted."""
    turns = [(speed(work, None), speed(work, cache)) for _ in range(rounds + 1)][1:]
    plain, cached = (statistics.median(speeds) for speeds in zip(*turns, strict=True))
    ratio = statistics.median(b / a for a, b in turns)
    print(
        f"  {name:9} decoding {plain:8.1f} img/s, cached {cached:8.1f} img/s, "
        f"cached / decoding {ratio:5.2f} (median of {rounds})"
    )


def some_of(folder: FaceFolder, pictures: int) -> FaceFolder:
    """About as many pictures of the folder, whole people, the first ones."""
    names: list[str] = []
    total = 0
    for name, count in folder.counts().items():
        if total >= pictures:
            break
        names.append(name)
        total += count
    return folder.only(names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--size", type=int, nargs="+", default=[64, 96, 224])
    parser.add_argument("--pictures", type=int, default=2000, help="about as many are used")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="loader processes, as --batches.workers")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    folder = some_of(scan_folder(arguments.data), arguments.pictures)
    for size in arguments.size:
        bench = _Bench(folder, size, arguments)
        print(
            f"{len(folder.paths)} pictures of {arguments.data}, {size} px, {arguments.backbone}, "
            f"{bench.device}, {torch.get_num_threads()} threads, {bench.workers} loader process(es)"
        )
        with tempfile.TemporaryDirectory() as place:
            started = time.perf_counter()
            cache = open_cache(Path(place), [folder], bench.prepare, size, progress=False)
            building = time.perf_counter() - started
            print(f"  building  {len(folder.paths) / building:.1f} img/s, once")
            started = time.perf_counter()
            open_cache(Path(place), [folder], bench.prepare, size, progress=False)
            opening = 1e3 * (time.perf_counter() - started)
            print(f"  opening   {opening:.0f} ms, at each later start")
            plain, cached = bench.read(None), bench.read(cache)
            print(
                f"  reading   decoding {plain:8.3f} ms, cached {cached:8.3f} ms of a processor, "
                f"decoding / cached {plain / cached:5.1f}"
            )
            for name, work in (
                ("loading", bench.load),
                ("training", bench.train),
                ("embedding", bench.embed),
            ):
                compare(name, work, cache, arguments.rounds)


if __name__ == "__main__":
    main()
