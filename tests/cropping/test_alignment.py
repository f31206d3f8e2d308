"""The geometry of alignment, against scikit-image and against drawn pictures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import SimilarityTransform

from siamese.cropping.alignment import Similarity, Unalignable, align, fit_similarity, template
from tests.cropping.dots import dots, drawn

SCALES = st.floats(0.02, 50)
ANGLES = st.floats(-math.pi, math.pi)
SHIFTS = st.tuples(st.floats(-3000, 3000), st.floats(-3000, 3000))
SEEDS = st.integers(0, 2**32 - 1)


def moved(points, scale, angle, shift):
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]]) + shift


# The template


def test_the_usual_template_is_that_of_112_pixels():
    eyes = template(112)[:2]
    assert np.array_equal(eyes, [[38.2946, 51.6963], [73.5318, 51.5014]])
    assert np.allclose(template(224), 2 * template(112))


@pytest.mark.parametrize("size", [16, 112, 160])
def test_a_margin_moves_the_template_towards_the_middle(size):
    inner, outer = template(size, 0.5), template(size)
    assert np.allclose((inner - size / 2) * 1.5, outer - size / 2)


# The similarity transform


@given(SCALES, ANGLES, SHIFTS)
@settings(deadline=None)
def test_a_similarity_transform_is_recovered(scale, angle, shift):
    source = template(112)
    found = fit_similarity(source, moved(source, scale, angle, shift))
    assert found.scale == pytest.approx(scale)
    assert np.allclose(found(source), moved(source, scale, angle, shift), atol=1e-6)
    assert np.allclose(found.inverse()(found(source)), source, atol=1e-6)


@given(SCALES, ANGLES, SHIFTS, st.floats(0.1, 15), SEEDS)
@settings(deadline=None)
def test_with_noise_it_is_the_one_of_scikit_image(scale, angle, shift, noise, seed):
    draw = np.random.default_rng(seed)
    source = moved(template(112), scale, angle, shift)
    source += draw.normal(0, noise * scale, (5, 2))
    ours = fit_similarity(source, template(112)).matrix()
    oracle = SimilarityTransform.from_estimate(source, template(112))
    assert np.allclose(ours, oracle.params[:2], rtol=1e-6, atol=1e-5)


@given(ANGLES, SEEDS)
@settings(deadline=None)
def test_mirrored_landmarks_are_never_mirrored_back(angle, seed):
    mirrored = moved(template(112) * [-1, 1], 3.0, angle, (500, 500))
    mirrored += np.random.default_rng(seed).normal(0, 1, (5, 2))
    found = fit_similarity(mirrored, template(112)).matrix()
    assert np.linalg.det(found[:, :2]) > 0
    oracle = SimilarityTransform.from_estimate(mirrored, template(112))
    assert np.allclose(found, oracle.params[:2], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), 7.0),
        np.array([[0, 0], [1, 0], [0, np.nan], [1, 1], [2, 2]]),
        np.array([[0, 0], [1, 0], [0, np.inf], [1, 1], [2, 2]]),
        template(112) * 1e12,
    ],
)
def test_landmarks_that_fix_nothing_are_refused(points):
    with pytest.raises(Unalignable, match="landmarks"):
        fit_similarity(points, template(112))


def test_points_whose_mirror_image_is_wanted_have_no_direction():
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    with pytest.raises(Unalignable, match="no face's direction"):
        fit_similarity(square, square * [1, -1])


# The pixels


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.9, 2.5, 5.3])
@pytest.mark.parametrize(("angle", "size", "margin"), [(0, 112, 0), (0.5, 112, 0.4), (-2, 160, 0)])
def test_dots_at_the_landmarks_come_to_lie_on_the_template(scale, angle, size, margin):
    landmarks = moved(template(112) - 56, scale, angle, (397.3, 311.8))
    picture = drawn(landmarks, (800, 640), 4 * scale)
    face = align(picture, landmarks, size, margin)
    assert face.size == (size, size)
    assert face.mode == "RGB"
    off = np.abs(dots(face) - template(size, margin)).max()
    assert off < 0.35, off


def test_what_lies_outside_of_the_picture_is_black():
    landmarks = template(112) - [40, 0]
    face = np.asarray(align(Image.new("RGB", (100, 112), "white"), landmarks, 112))
    assert (face[:, :39] == 0).all()
    assert (face[:, 42:110] == 255).all()
    away = align(Image.new("RGB", (100, 112), "white"), landmarks + 10_000, 112)
    assert np.asarray(away).max() == 0


@pytest.mark.parametrize("scale", [2.0, 3.7, 8.0])
def test_a_large_face_is_averaged_and_shows_no_pattern(scale):
    checks = (np.indices((1200, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = Image.fromarray(np.stack([checks] * 3, axis=2))
    landmarks = moved(template(112) - 56, scale, 0.3, (600, 600))
    face = np.asarray(align(picture, landmarks, 112), np.float64)
    assert (
        np.abs(face - 127.5).max() < 16
    )  # a square of 3 x 3 has 5 of one colour, 14 from the mean


def test_a_transform_is_a_matrix_as_scikit_image_has_it():
    ours = Similarity(2 * np.exp(0.7j), 3 + 4j)
    theirs = SimilarityTransform(scale=2, rotation=0.7, translation=(3, 4))
    assert np.allclose(ours.matrix(), theirs.params[:2])
    assert np.allclose(ours(template(112)), theirs(template(112)))
