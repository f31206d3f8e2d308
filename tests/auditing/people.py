"""Drawn embeddings of people who differ in some directions, and in others do not."""

import numpy as np


def draw(
    people: int, images: int, *, seed: int = 0, dimensions: int = 16, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (people * images, dimensions) and labels.

    Pictures of one person scatter most where people do not differ: a plain cosine is misled.
    """
    rng = np.random.default_rng(seed)
    between = np.where(np.arange(dimensions) < dimensions // 2, 1.0, 0.05)
    within = np.where(np.arange(dimensions) < dimensions // 2, 0.25, 1.0) * spread
    labels = np.repeat(np.arange(people), images)
    centres = rng.normal(size=(people, dimensions)) * between
    rows = centres[labels] + rng.normal(size=(len(labels), dimensions)) * within
    return rows.astype(np.float32), labels


def draw_wide(
    people: int, images: int, *, seed: int = 0, dimensions: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """The same, as of a good model: far apart, with many dimensions for few pictures."""
    rng = np.random.default_rng(seed)
    order = np.arange(dimensions)
    labels = np.repeat(np.arange(people), images)
    centres = rng.normal(size=(people, dimensions)) / np.sqrt(1 + order)
    scatter = rng.normal(size=(len(labels), dimensions)) * 2 / np.sqrt(20 + order)
    return (centres[labels] + scatter).astype(np.float32), labels
