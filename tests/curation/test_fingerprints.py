"""Fingerprints: what stays, and what changes them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from siamese.curation.copies import FINE_LIMIT
from siamese.curation.inspection import as_words, fingerprint_of
from tests.conftest import draw_person


def distance(first, second):
    words = as_words([fingerprint_of(first)[0], fingerprint_of(second)[0]])
    different = np.bitwise_count(words[0] ^ words[1])
    return int(different[0]), int(different[1:].sum())


def recompressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        lambda image: image.resize((image.width * 3, image.height * 3)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.15),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_copies_are_near(change):
    for person in range(5):
        image = draw_person(person, 0).resize((120, 144), Image.Resampling.BICUBIC)
        coarse, fine = distance(image, change(image))
        assert coarse <= 6
        assert fine <= FINE_LIMIT


def test_a_mirrored_picture_is_not_near():
    image = draw_person(1, 1)
    assert distance(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[0] > 6


def test_the_bits_are_those_of_the_cosine_transform():
    image = draw_person(2, 3)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR), float)
    lowest = dctn(grey, norm="ortho")[1:9, 1:9].ravel()
    bits = "".join("1" if value > np.median(lowest) else "0" for value in lowest)
    assert int(as_words([fingerprint_of(image)[0]])[0, 0]) == int(bits, 2)


def test_one_colour_has_no_contrast():
    assert fingerprint_of(Image.new("RGB", (50, 40), (9, 200, 3)))[1] == 0
    assert fingerprint_of(draw_person(0, 0))[1] > 10


def test_no_codes_are_no_words():
    assert as_words([]).shape == (0, 5)
