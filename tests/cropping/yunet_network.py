"""A network in YuNet's input and output shape that finds blue squares: a test can draw those."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from siamese.cropping.alignment import Points, template
from tests.cropping.dots import drawn

BLUE = (0, 0, 255)  # RGB; the network sees BGR, and red would count against a face
STRIDES = (8, 16, 32)
Offsets = Sequence[tuple[float, float]]


# Of a face below its blue square, in cells of 64 pixels of a photograph.
OFFSETS: Points = (template(112) - 56) * 2 / 112 + [0.5, 3.5]


def network_of_squares() -> bytes:
    """A network that finds the faces of :func:`photograph_with_square`."""
    return yunet_like([(float(x), float(y)) for x, y in OFFSETS], (0.5, 3.5, 2, 2))


def photograph_with_square(x: int, y: int) -> tuple[Image.Image, Points]:
    """1280 x 960 pixels with a blue square of 64 that marks a face below it, and its landmarks."""
    landmarks = OFFSETS * 64 + [x, y]
    picture = drawn(landmarks, (1280, 960), 5)
    picture.paste(BLUE, (x, y, x + 64, y + 64))
    return picture, landmarks


def yunet_like(
    landmarks: Offsets,
    box: tuple[float, float, float, float] = (0.5, 0.5, 4.0, 4.0),
    stride: int = 32,
    side: int = 640,
    values: int = 10,
) -> bytes:
    """An ONNX file: every cell of ``stride`` pixels that is all blue is a face.

    A face's score is sqrt(share of blue) of its cell. Its box (x and y of the middle, width and
    height) and its landmarks are given in cells, from the cell's corner. Cells of the other strides
    find nothing.

    Args:
        side: of the input that the file declares.
        values: per cell for the landmarks; another number than 10 is no YuNet.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []
    outputs: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def head(name: str, step: int, kernel: np.ndarray, bias: Sequence[float]) -> None:
        """Convolved cell by cell, then as a list of cells: (1, cells, values)."""
        width = len(bias)
        own = f"{name}_{step}"
        w = constant(f"w_{own}", kernel.astype(np.float32))
        b = constant(f"b_{own}", np.array(bias, np.float32))
        shape = constant(f"s_{own}", np.array([1, -1, width], np.int64))
        nodes.extend(
            [
                helper.make_node(
                    "Conv",
                    ["input", w, b],
                    [f"c_{own}"],
                    kernel_shape=[step, step],
                    strides=[step, step],
                ),
                helper.make_node("Transpose", [f"c_{own}"], [f"t_{own}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t_{own}", shape], [own]),
            ]
        )
        cells = (side // step) ** 2
        outputs.append(helper.make_tensor_value_info(own, TensorProto.FLOAT, [1, cells, width]))

    middle_x, middle_y, width, height = box
    points = [value for point in landmarks for value in point][:values]
    for step in STRIDES:
        none = np.zeros((1, 3, step, step))
        blue = none + np.array([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1) / (255 * step**2)
        head("cls", step, blue if step == stride else none, [0.0])
        head("obj", step, none, [1.0])
        size = [math.log(width), math.log(height)]
        head("bbox", step, none.repeat(4, 0), [middle_x, middle_y, *size])
        head("kps", step, none.repeat(values, 0), points)
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "yunet-like", [given], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    checker.check_model(model)
    return bytes(model.SerializeToString())
