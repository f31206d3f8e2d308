"""Train from Python with a network and a loss of your own, and use what was trained.

    python scripts/examples/train_own_network.py [FACES]

FACES is a folder with one folder per person; without it the demo faces are drawn.
"""

import sys

import torch
from torch import nn

import siamese


class SmallNetwork(nn.Module):
    """Pictures (N, 3, H, W) to features (N, 64); any module that does so will do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)


def soft_triplet(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss is any callable of embeddings (N, D) and labels (N,), e.g. one of PML's, too."""
    unit = nn.functional.normalize(embeddings)
    distance = 1 - unit @ unit.T
    same = labels[:, None] == labels[None]
    farthest = distance.masked_fill(~same, 0).amax(1)
    nearest = distance.masked_fill(same, 2).amin(1)
    return nn.functional.softplus(farthest - nearest).mean()


def main() -> None:
    faces = sys.argv[1] if len(sys.argv) > 1 else None
    run = siamese.train(
        faces,
        backbone=SmallNetwork(),
        loss=soft_triplet,
        epochs=1,
        images={"size": 48},
        batches={"people": 8, "images_per_epoch": 256},
    )
    print(f"{run.best}: AUC {run.figures['auc']:.3f} on people that it never saw")
    # A checkpoint keeps the name of the class only: the network is handed over again.
    model = siamese.Embedder.load(run.best, backbone=SmallNetwork())
    print(model.embed(torch.zeros(2, 3, 48, 48)).shape)


if __name__ == "__main__":
    main()
