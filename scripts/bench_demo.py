"""Three AUCs on demo people that neither trained nor selected: how real is the demo's problem?

    .venv/bin/python scripts/bench_demo.py                        # histogram, untrained network
    .venv/bin/python scripts/bench_demo.py --checkpoint BEST.pt   # and one trained on the demo

The untrained network is the demo's own with random weights, its batch norms measured on the
pictures; the histogram has 8 x 8 x 8 RGB bins (square roots, which score better than counts).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from siamese.config import (
    DEMO_IMAGES,
    DEMO_PEOPLE,
    DEMO_SEED,
    DEMO_SIZE,
    TrainSettings,
    demo_settings,
)
from siamese.data.decode import decode
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.loaders import evaluation_loader
from siamese.data.split import split_by_identity
from siamese.data.transforms import Preprocess
from siamese.demo.demo_faces import write_demo_faces
from siamese.models.embedder import SiameseEmbedder
from siamese.models.embedding import embed
from siamese.models.inference import load_embedder
from siamese.training.recalibration import recalibrate
from siamese.verification.counts import count_pairs
from siamese.verification.metrics import auc

CPU = torch.device("cpu")


def test_people(root: Path) -> FaceFolder:
    """The test people of the demo's own split, drawn below ``root``."""
    folder = scan_folder(write_demo_faces(root, DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED))
    split = demo_settings()["split"]
    parts = split_by_identity(
        folder.names, split["validation"], split["test"], TrainSettings().split_seed
    )
    return folder.only(parts["test"])


def histogram_auc(people: FaceFolder) -> float:
    """AUC of 8 x 8 x 8 RGB histograms (Hellinger kernel)."""
    rows = []
    for path in people.paths:
        pixels = np.asarray(decode(people.root / path)).reshape(-1, 3) // 32
        counts = np.bincount(pixels @ np.array([64, 8, 1]), minlength=512)
        rows.append(np.sqrt(counts / counts.sum()))
    return auc(count_pairs(np.array(rows, np.float32), people.labels))


def network_auc(people: FaceFolder, model: SiameseEmbedder, measure_norms: bool) -> float:
    """AUC of an embedder on the demo's input size."""
    size = demo_settings()["images"]["size"]
    loader = evaluation_loader(people, Preprocess(size, "squash"), size, batch_size=100, workers=0)
    if measure_norms:
        recalibrate(model, (batch.images for batch in loader))
    return auc(count_pairs(embed(model, loader, device=CPU)[0], people.labels))


def untrained_auc(people: FaceFolder, seed: int = 0) -> float:
    """AUC of the demo's network with random weights."""
    torch.manual_seed(seed)
    settings = demo_settings()["model"]
    model = SiameseEmbedder(settings["backbone"], settings["embedding_dim"])
    return network_auc(people, model, measure_norms=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--faces", type=Path, default=Path("runs/demo-faces"))
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    people = test_people(arguments.faces)
    print(f"{len(people.names)} unseen people, {len(people.paths)} pictures")
    print(f"colour histogram   AUC {histogram_auc(people):.4f}")
    untrained = [untrained_auc(people, seed) for seed in range(3)]
    print(f"untrained network  AUC {', '.join(f'{value:.4f}' for value in untrained)} (3 seeds)")
    if arguments.checkpoint:
        trained = load_embedder(arguments.checkpoint, device="cpu").network
        print(f"trained network    AUC {network_auc(people, trained, measure_norms=False):.4f}")


if __name__ == "__main__":
    main()
