"""OpenCV's call of YuNet, with a small network in its form whose faces are known."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from siamese.cropping.detection import FoundFace, YuNet, find_faces, network_fault
from siamese.errors import UserError
from tests.cropping.yunet_network import BLUE, yunet_like

OFFSETS = ((0.2, 5.0), (2.1, 5.1), (1.0, 6.0), (0.3, 7.2), (1.9, 7.1))
BOX = (1.1, 6.0, 2.5, 3.5)


@pytest.fixture(scope="module")
def network() -> bytes:
    return yunet_like(OFFSETS, BOX)


def photograph(*cells: tuple[int, int], size: tuple[int, int] = (640, 480), cell: int = 32) -> Any:
    picture = Image.new("RGB", size, (40, 90, 60))
    for x, y in cells:
        box = (x * cell, y * cell, (x + 1) * cell - 1, (y + 1) * cell - 1)
        ImageDraw.Draw(picture).rectangle(box, fill=BLUE)
    return picture


def decoded(x: int, y: int, stride: int = 32) -> tuple[list[float], list[list[float]]]:
    """YuNet's decoding: (cell + offset) * stride; the network gives the size's logarithm."""
    middle_x, middle_y = (x + BOX[0]) * stride, (y + BOX[1]) * stride
    width, height = math.exp(math.log(BOX[2])) * stride, math.exp(math.log(BOX[3])) * stride
    box = [middle_x - width / 2, middle_y - height / 2, width, height]
    return box, [[(x + dx) * stride, (y + dy) * stride] for dx, dy in OFFSETS]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_face_is_where_the_formula_says(stride):
    detector = YuNet(yunet_like(OFFSETS, BOX, stride))
    (face,) = detector.find(photograph((3, 2), cell=stride))
    box, landmarks = decoded(3, 2, stride)
    assert np.allclose(face.box, box, atol=1e-3)
    assert np.allclose(face.points(), landmarks, atol=1e-3)
    assert face.score == pytest.approx(1)


def test_several_faces_and_no_face(network):
    detector = YuNet(network)
    found = detector.find(photograph((3, 2), (12, 5)))
    assert sorted(face.box[0] for face in found) == pytest.approx(
        [decoded(3, 2)[0][0], decoded(12, 5)[0][0]], abs=1e-3
    )
    assert detector.find(photograph()) == []


def test_the_score_is_the_geometric_mean_and_its_limit_counts(network):
    picture = photograph((3, 2))
    ImageDraw.Draw(picture).rectangle((96, 64, 127, 71), fill="black")  # a quarter of the cell
    (face,) = YuNet(network, score=0.8).find(picture)
    assert face.score == pytest.approx(math.sqrt(0.75), abs=1e-3)
    assert YuNet(network, score=0.9).find(picture) == []


@pytest.mark.parametrize("side", [64, 320, 1024])
def test_other_sizes_of_the_input_than_the_file_declares(network, side):
    """As of the known file, which declares 640 pixels."""
    detector = YuNet(network, side)
    (face,) = detector.find(photograph((1, 0), size=(side, side - 20)))
    assert np.allclose(face.box, decoded(1, 0)[0], atol=1e-3)


@pytest.mark.parametrize("factor", [1, 2, 3.5])
def test_places_are_those_of_the_whole_photograph(network, factor):
    """The middle of the n-th pixel, at half the size, lies between two pixels of the whole."""
    small = photograph((3, 2))
    large = small.resize((round(640 * factor), round(480 * factor)), Image.Resampling.NEAREST)
    (face,) = find_faces(large, YuNet(network), 640)
    box, landmarks = decoded(3, 2)
    assert np.allclose(face.points(), (np.array(landmarks) + 0.5) * factor - 0.5, atol=0.01)
    assert np.allclose(face.box[2:], np.array(box[2:]) * factor, atol=0.01)


class Sees:
    """Finds one face in pictures of at most so many pixels, and remembers what it was shown."""

    def __init__(self, most: int, *faces: FoundFace):
        self.most, self.faces, self.shown = most, faces, []

    def find(self, picture: Image.Image) -> list[FoundFace]:
        self.shown.append(picture.size)
        return list(self.faces) if max(picture.size) <= self.most else []


def face(x: float = 0, side: float = 50, score: float = 0.9) -> FoundFace:
    return FoundFace((x, 0, side, side), ((1, 1), (2, 1), (1.5, 2), (1, 3), (2, 3)), score)


def test_where_nothing_is_found_it_looks_at_half_the_size_too():
    detector = Sees(320, face())
    (found,) = find_faces(Image.new("RGB", (1280, 960)), detector, 640)
    assert detector.shown == [(640, 480), (320, 240)]
    assert found.box[2] == pytest.approx(200)
    nothing = Sees(0)
    assert find_faces(Image.new("RGB", (300, 200)), nothing, 640) == []
    assert nothing.shown == [(300, 200)]


def test_the_largest_comes_first_and_broken_ones_do_not_count():
    broken = [face(side=0), face(side=math.nan), face(x=math.inf), face(score=math.nan)]
    detector = Sees(640, face(side=30), *broken, face(side=80), face(x=5, side=50))
    found = find_faces(Image.new("RGB", (640, 480)), detector, 640)
    assert [one.box[2] for one in found] == [80, 50, 30]


def test_a_strip_of_one_pixel(network):
    assert find_faces(Image.new("RGB", (9000, 1)), YuNet(network), 640) == []


def test_a_detector_is_pickled_without_what_opencv_made_of_it(network):
    detector = YuNet(network)
    detector.find(photograph())
    again = pickle.loads(pickle.dumps(detector))
    assert again == detector
    assert len(again.find(photograph((3, 2)))) == 1


# Files that are no YuNet


@pytest.mark.parametrize("content", [b"", b"no network at all" * 50, b"<html>404</html>"])
def test_no_onnx(content):
    assert "is no ONNX network that OpenCV can read" in str(network_fault(content, 640))


def test_outputs_that_opencv_would_read_past():
    fault = network_fault(yunet_like(OFFSETS, BOX, values=8), 640)
    assert "kps_8 has the shape (1, 6400, 8)" in str(fault)
    with pytest.raises(UserError, match="kps_8"):
        YuNet(yunet_like(OFFSETS, BOX, values=8)).find(photograph())


def test_another_network():
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    made = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 3, 64, 64])
    node = helper.make_node("Relu", ["input"], ["embedding"])
    model = helper.make_model(
        helper.make_graph([node], "other", [given], [made]),
        opset_imports=[helper.make_opsetid("", 11)], ir_version=7,
    )  # fmt: skip
    fault = network_fault(model.SerializeToString(), 64)
    assert "is no network of YuNet's form for 64 x 64 pixels" in str(fault)


def test_the_right_form_has_no_fault(network):
    assert network_fault(network, 640) is None
