"""A detector for tests of everything around it: a picture says itself how many faces it has."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from siamese.cropping.alignment import template
from siamese.cropping.detection import FoundFace

SHAPE = (160, 120)
# Middle of each face and side of its crop, as shares of the picture's longer side.
FACES = ((0.5, 0.35, 0.6), (0.2, 0.5, 0.4), (0.8, 0.6, 0.2))


@dataclass
class Counting:
    """Finds as many faces as the first pixel's red says (in steps of 50), the larger ones last."""

    def find(self, picture: Image.Image) -> list[FoundFace]:
        first = picture.getpixel((0, 0))
        assert isinstance(first, tuple)
        number = round(first[0] / 50)
        return [self._face(n, max(picture.size)) for n in reversed(range(number))]

    def _face(self, number: int, longer: int) -> FoundFace:
        x, y, side = np.array(FACES[number]) * longer
        points = (template(112) - 56) * side / 112 + [x, y]
        return FoundFace(
            (x - side / 2, y - side / 2, side, side),
            tuple((float(a), float(b)) for a, b in points),
            0.9 - number / 10,
        )


def photograph(faces: int, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Image.Image:
    """Noise with so many faces in it."""
    noise = np.random.default_rng(seed).integers(0, 256, (*shape[::-1], 3), dtype=np.uint8)
    noise[:16, :16] = (50 * faces, 0, 0)
    return Image.fromarray(noise)
