"""Pictures with a coloured dot at each of the five landmarks, and where those are found again."""

import numpy as np
from PIL import Image, ImageDraw

from siamese.cropping.alignment import Points

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def drawn(landmarks: Points, shape: tuple[int, int], radius: float) -> Image.Image:
    """A grey picture with a dot in each landmark's own colour, drawn four times as large."""
    picture = Image.new("RGB", (shape[0] * 4, shape[1] * 4), (90, 90, 90))
    pen = ImageDraw.Draw(picture)
    for (x, y), colour in zip((landmarks + 0.5) * 4, COLOURS, strict=True):
        pen.ellipse((x - 4 * radius, y - 4 * radius, x + 4 * radius, y + 4 * radius), fill=colour)
    return picture.reduce(4)


def dots(picture: Image.Image) -> Points:
    """Where the middle of each colour's dot is, weighted by how much of it a pixel shows."""
    pixels = np.asarray(picture, np.float64) - 90
    found = []
    for colour in COLOURS:
        direction = np.array(colour) - 90.0
        share = pixels @ direction / (direction @ direction)
        share[share < 0.7] = 0
        rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        found.append(((share * columns).sum() / share.sum(), (share * rows).sum() / share.sum()))
    return np.array(found)
