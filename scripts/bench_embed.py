"""Throughput of embedding as ratios, in one run: the product, its ceiling, and other ways.

    .venv/bin/python scripts/bench_embed.py --data FACES [--size 112] [--backbone NAME] ...

`product`: pictures per second of `siamese.models.inference.Embedder.embed_listed`, which is what
`siamese-eval` runs, decoding included. They take turns, round by round, with
`resident batch`  the same network on one batch that stays on the device: the ceiling.
`resident, apart` the same in as many processes as embed, where those that load do: theirs.
`pipeline`        batches decoded and prepared, and not used.
`plain loop`      one picture decoded, prepared and embedded at a time, fp32, contiguous layout.
`PML tester`      pytorch-metric-learning's BaseTester with as many loader processes.
The first round warms up and does not count. Weights are random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, see cli/parsing.py

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.testers import BaseTester
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from torch.utils.data import DataLoader, Dataset

from siamese.data.decode import decode
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.loaders import default_workers, evaluation_loader, loader_options
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import SiameseEmbedder
from siamese.models.embedding import BatchEmbedding, embed_batch
from siamese.models.folding import folded
from siamese.models.inference import Embedder


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """What the network takes of each picture, one after the other."""

    def __init__(self, folder: FaceFolder, embedder: Embedder):
        self.folder, self.prepare = folder, embedder.prepare

    def __len__(self) -> int:
        return len(self.folder.paths)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        return self.prepare(decode(self.folder.root / self.folder.paths[at])), 0


def ways(
    folder: FaceFolder, arguments: argparse.Namespace, device: torch.device
) -> dict[str, Callable[[], int]]:
    """Each way embeds its pictures once and returns how many that are."""
    model = SiameseEmbedder(arguments.backbone, size=arguments.size)
    classic = SiameseEmbedder(arguments.backbone, size=arguments.size).to(device).eval()
    precision = choose_precision(arguments.precision, device)
    embedder = Embedder(
        model, model.spec("squash"), device=device, precision=precision, batch=arguments.batch
    )
    workers = default_workers(device.type) if arguments.workers is None else arguments.workers
    pictures = Pictures(folder, embedder)
    resident = torch.stack([pictures[at % len(pictures)][0] for at in range(arguments.batch)])
    resident = resident.to(device)
    unused = AccuracyCalculator(knn_func=CustomKNN(CosineSimilarity()))  # or it asks for faiss
    tester = BaseTester(
        batch_size=arguments.batch, dataloader_num_workers=workers, accuracy_calculator=unused
    )

    def product() -> int:
        return len(embedder.embed_listed(folder, workers=workers)[0])

    network = folded(embedder.network, len(folder.paths), precision)  # as the product does

    def ceiling() -> int:
        turns = max(1, len(folder.paths) // arguments.batch)
        for _ in range(turns):
            embed_batch(network, resident, device, precision)
        return turns * arguments.batch

    team = BatchEmbedding(network, embedder.batch, device, precision, False).loaders(
        arguments.backbone, workers, -(-len(folder.paths) // embedder.batch)
    )

    def apart(_: int) -> int:
        return len(embed_batch(network, resident[: embedder.batch], device, precision))

    def ceiling_apart() -> int:
        turns = DataLoader(
            range(len(folder.paths) // embedder.batch),
            batch_size=None,
            **loader_options(team, False, collate=apart),
        )
        return sum(turns)

    def pipeline() -> int:
        loader = evaluation_loader(
            folder, embedder.prepare, arguments.size, batch_size=arguments.batch, workers=workers
        )
        return sum(len(batch.images) for batch in loader)

    @torch.inference_mode()
    def plain() -> int:
        for at in range(len(pictures)):
            classic(pictures[at][0][None].to(device)).cpu()
        return len(pictures)

    def pml() -> int:
        return len(tester.get_all_embeddings(pictures, classic)[0])

    everything = {"product": product, "resident batch": ceiling}
    everything |= {"resident, apart": ceiling_apart} if team else {}
    everything |= {"pipeline": pipeline}
    return everything if arguments.alone else everything | {"plain loop": plain, "PML tester": pml}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--backbone", default="tf_efficientnetv2_b0.in1k")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=1024, help="pictures per round")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rounds", type=int, default=3, help="after one that warms up")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--alone", action="store_true", help="without the plain loop and PML")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    whole = scan_folder(arguments.data)
    some = whole.paths[:: max(1, len(whole.paths) // arguments.pictures)][: arguments.pictures]
    folder = FaceFolder(whole.root, whole.names, some, tuple(0 for _ in some), ())
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    rounds: list[dict[str, float]] = []
    methods = ways(folder, arguments, device)
    for number in range(arguments.rounds + 1):
        speeds = {}
        for name, method in methods.items():
            started = time.perf_counter()
            speeds[name] = method() / (time.perf_counter() - started)
        told = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
        print(f"round {number + 1}: img/s: {told}" + "  (warm-up)" * (number == 0), flush=True)
        rounds.append(speeds)
    for name in list(methods)[1:]:
        ratios = [speeds["product"] / speeds[name] for speeds in rounds[1:]]
        print(
            f"{arguments.backbone}, {arguments.size} px: product / {name}: "
            f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"
        )


if __name__ == "__main__":
    main()
