"""Draw the demo faces: pictures of a person with given traits.

A face lives in *face units*: the origin is the middle of the head, x points right, y points down,
the crown is at y = -1 and the chin at y = +1. Every part is a polygon in face units which the
pose carries to pixels: the head is taken as a solid that is as deep as it is wide at every height,
so that the features of a turned head slide towards its outline and never leave it.

Who a person is lies in shapes (head, eyes, brows, nose, mouth, hair, beard, glasses, moles). The
light, the camera, the background and the clothes are drawn afresh for every picture, so that
colours say little about the person.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from siamese.demo.face_traits import Colour, Hair, Head, Nose, Traits, choose, mix

Array = NDArray[np.float64]

# Shapes are drawn this much larger and averaged down, which smooths their edges.
SUPERSAMPLING = 2

BLACK = (20, 16, 18)
WHITE = (250, 248, 244)


# --- how a picture shows that person -------------------------------------------------------------


@dataclass(frozen=True)
class Pose:
    """Where the head is in a picture, and which way it looks."""

    angle: float  # radians, turn in the picture's plane
    yaw: float  # radians, positive looks to the right of the picture
    pitch: float  # radians, positive looks down
    scale: float  # pixels of the canvas per face unit
    x: float  # the middle of the head, pixels of the canvas
    y: float


@dataclass(frozen=True)
class Expression:
    """What the face does in a picture, lengths in face units."""

    smile: float  # -1 (sad) .. 1 (glad)
    gape: float  # how far the lips are apart
    brow: float  # how far the brows are raised
    lids: float  # 0 (closed) .. about 1 (open)
    gaze_x: float  # -1..1
    gaze_y: float


def _draw_pose(rng: np.random.Generator, canvas: int) -> Pose:
    return Pose(
        angle=float(np.clip(rng.normal(0.0, 0.14), -0.35, 0.35)),
        yaw=float(np.clip(rng.normal(0.0, 0.22), -0.45, 0.45)),
        pitch=float(np.clip(rng.normal(0.0, 0.13), -0.28, 0.28)),
        scale=canvas * rng.uniform(0.27, 0.36),
        x=canvas * (0.5 + rng.uniform(-0.07, 0.07)),
        y=canvas * (0.51 + rng.uniform(-0.06, 0.06)),
    )


def _draw_expression(rng: np.random.Generator) -> Expression:
    return Expression(
        smile=float(np.clip(rng.normal(0.3, 0.5), -0.6, 1.0)),
        gape=max(0.0, rng.uniform(-0.2, 0.17)),
        brow=rng.uniform(-0.05, 0.07),
        lids=0.06 if rng.random() < 0.07 else rng.uniform(0.65, 1.1),
        gaze_x=rng.uniform(-1.0, 1.0),
        gaze_y=rng.uniform(-0.5, 0.5),
    )


class _Pen:
    """Draws shapes given in face units on a canvas, through a pose."""

    def __init__(self, canvas: Image.Image, pose: Pose, head: Head) -> None:
        # An RGBA pen on an RGB canvas blends colours of four parts into the picture.
        self._draw = ImageDraw.Draw(canvas, "RGBA")
        self.pose = pose
        self._cos, self._sin = np.cos(pose.angle), np.sin(pose.angle)
        # Half the outline, from the crown to the chin: the half-width at every height.
        turn = np.linspace(0.0, np.pi, 49)
        self.ys = -np.cos(turn)
        self.xs = np.maximum(np.sin(turn), 0.0) ** 0.8 * _width_at(head, self.ys)

    def half_width(self, y: Array | float) -> Array:
        """The half-width of the head at height y, 0 above the crown and below the chin."""
        return np.asarray(np.interp(y, self.ys, self.xs, left=0.0, right=0.0))

    def flat(self, points: Array) -> Array:
        """Pixels of points in the plane of the outline: they turn only with the picture."""
        x, y = points[:, 0] * self.pose.scale, points[:, 1] * self.pose.scale
        return np.stack(
            (
                self.pose.x + x * self._cos - y * self._sin,
                self.pose.y + x * self._sin + y * self._cos,
            ),
            axis=1,
        )

    def face(self, points: Array) -> Array:
        """Pixels of points on the front of the head."""
        x, y = points[:, 0], points[:, 1]
        depth = np.sqrt(np.maximum(self.half_width(y) ** 2 - x**2, 0.0))
        yaw, pitch = self.pose.yaw, self.pose.pitch
        turned = x * np.cos(yaw) + depth * np.sin(yaw)
        depth = depth * np.cos(yaw) - x * np.sin(yaw)
        nodded = y * np.cos(pitch) + depth * np.sin(pitch)
        return self.flat(np.stack((turned, nodded), axis=1))

    def fill(self, pixels: Array, colour: Colour) -> None:
        """Fill the polygon with these corners, pixels (n, 2)."""
        self._draw.polygon(pixels.ravel().tolist(), fill=colour)

    def line(self, pixels: Array, colour: Colour, width: float) -> None:
        """Draw an open line through the pixels (n, 2), `width` face units thick."""
        thick = max(1, round(width * self.pose.scale))
        self._draw.line(pixels.ravel().tolist(), fill=colour, width=thick, joint="curve")

    def dot(self, pixels: Array, radius: float, colour: Colour) -> None:
        """Draw a disc of `radius` face units around the only pixel of pixels (1, 2)."""
        x, y = pixels[0]
        r = max(radius * self.pose.scale, 0.7)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def draw_face(traits: Traits, rng: np.random.Generator, size: int = 96) -> Image.Image:
    """Draw one RGB picture of size x size pixels of the person with these traits.

    Pose, expression, light, background, clothes, occlusion and the faults of the camera come from
    `rng`; with the same state of `rng` the same picture comes out.
    """
    canvas_size = size * SUPERSAMPLING
    pose, expression = _draw_pose(rng, canvas_size), _draw_expression(rng)
    occluder = choose(rng, tuple(OCCLUDERS)) if rng.random() < 0.25 else "none"
    canvas = _background(rng, size).resize((canvas_size, canvas_size), Image.Resampling.BILINEAR)
    pen = _Pen(canvas, pose, traits.head)
    _draw_person(pen, traits, expression, rng, occluder)
    if occluder != "none":
        OCCLUDERS[occluder](pen, traits, rng)
    picture = canvas.reduce(SUPERSAMPLING)
    return _photograph(picture, pose, rng)


def _draw_person(
    pen: _Pen, traits: Traits, expression: Expression, rng: np.random.Generator, occluder: str
) -> None:
    """Draw the person from the back to the front, leaving out what the occluder replaces."""
    head, hair, hat = traits.head, traits.hair, occluder == "hat"
    hair_colour = _vary(hair.colour, rng, 0.15)
    _clothes(pen, rng)
    # A hat hides what stands out on top.
    fullness = (0.05 if hat else hair.volume) * rng.uniform(0.85, 1.15)
    if hair.length:
        _back_hair(pen, hair, fullness, hair_colour, rng)
    if hair.extra != "none" and not hat:
        _hair_extra(pen, hair, hair_colour)
    _neck(pen, head)
    if not hair.length:
        _ears(pen, head)
    _skull(pen, head)
    _beard(pen, traits, hair_colour)
    _nose(pen, traits.nose, head.skin)
    _mouth(pen, traits, expression)
    if traits.beard in ("moustache", "goatee", "full"):
        _moustache(pen, traits, expression, hair_colour)
    for side in (-1.0, 1.0):
        _eye(pen, traits, expression, side)
    glasses = traits.glasses != "none" and occluder != "sunglasses" and rng.random() < 0.85
    if glasses:
        _glasses_arms(pen, traits)
    if hair.line != "bald":
        _front_hair(pen, hair, fullness, hair_colour, rng, hat=hat)
    for side in (-1.0, 1.0):
        _brow(pen, traits, expression, side, hair_colour)
    if glasses:
        _glasses(pen, traits)


# --- parts of the body ---------------------------------------------------------------------------


def _clothes(pen: _Pen, rng: np.random.Generator) -> None:
    """Draw shoulders in random clothes, at times striped."""
    colour = _random_colour(rng)
    wide, fall = rng.uniform(1.15, 1.6), rng.uniform(0.0, 0.15)
    shoulders = _mirror(((0.0, 1.12), (0.3, 1.17), (0.75, 1.33), (wide, 1.5 + fall), (wide, 4.0)))
    pen.fill(pen.flat(shoulders), colour)
    if rng.random() < 0.35:
        stripe = _random_colour(rng)
        for y in np.arange(1.45, 3.0, rng.uniform(0.2, 0.4)):
            pen.line(pen.flat(np.array(((-wide, y), (wide, y)))), stripe, 0.07)


def _neck(pen: _Pen, head: Head) -> None:
    """Draw the neck with a round neckline, and the shadow of the chin on it."""
    half = 0.52 * head.width
    neck = _mirror(((half, 0.5), (half, 1.1), (half * 1.25, 1.22), (half * 0.8, 1.42), (0.0, 1.5)))
    pen.fill(pen.flat(_smooth(neck)), _shade(head.skin, 0.86))
    shadow = _mirror(((half, 0.5), (half, 1.05), (half * 0.6, 1.14), (0.0, 1.17)))
    pen.fill(pen.flat(shadow), (*_shade(head.skin, 0.55), 90))


def _ears(pen: _Pen, head: Head) -> None:
    """Draw the ears behind the head: a turn brings one out and hides the other."""
    for side in (-1.0, 1.0):
        x = side * (head.width - 0.04 + head.ear_out) - 0.16 * np.sin(pen.pose.yaw)
        y = 0.08 - 0.3 * np.sin(pen.pose.pitch)
        pen.fill(pen.flat(_oval(x, y, 0.13, head.ear_size)), _shade(head.skin, 0.92))
        pen.fill(pen.flat(_oval(x, y, 0.07, head.ear_size * 0.6)), _shade(head.skin, 0.78))


def _skull(pen: _Pen, head: Head) -> None:
    """Draw the bare head with blush, folds, freckles and moles."""
    outline = np.stack((pen.xs, pen.ys), axis=1)
    pen.fill(pen.flat(_both_sides(outline)), head.skin)
    for side in (-1.0, 1.0):
        if head.blush > 0.1:
            cheek = _oval(side * 0.42, 0.32, 0.17, 0.13)
            pen.fill(pen.face(cheek), (226, 90, 90, int(70 * head.blush)))
        if head.folds > 0.1:
            fold = np.array(((0.2, 0.36), (0.3, 0.5), (0.33, 0.62))) * (side, 1.0)
            pen.line(pen.face(fold), (*_shade(head.skin, 0.55), int(190 * head.folds)), 0.022)
    for x, y, radius in head.marks:
        spot = pen.face(np.array(((x, y),)))
        pen.dot(spot, radius, (*_shade(head.skin, 0.45), 190))


def _nose(pen: _Pen, nose: Nose, skin: Colour) -> None:
    """Draw the nose: a shaded bridge that widens to the wings, a light ridge and two nostrils."""
    top, tip = nose.y - 0.36, nose.y + nose.tip
    half = _mirror(
        (
            (nose.bridge * 0.7, top),
            (nose.bridge, nose.y - 0.18),
            (nose.width, nose.y - 0.05),
            (nose.width * 0.8, nose.y + 0.04),
            (nose.width * 0.3, tip + 0.05),
        )
    )
    pen.fill(pen.face(_smooth(half)), _shade(skin, 0.84))
    # The shaded side is the one turned away; the ridge stands out towards the turn.
    ridge = 0.05 * np.sin(pen.pose.yaw)
    light = _mirror(
        ((nose.bridge * 0.5, top), (nose.bridge * 0.7, nose.y - 0.15), (nose.width * 0.55, tip))
    )
    pen.fill(pen.face(_smooth(light) + np.array((ridge, -0.02))), _shade(skin, 1.04))
    for side in (-1.0, 1.0):
        nostril = _oval(side * nose.width * 0.5 + ridge, nose.y + 0.03, 0.032, 0.02)
        pen.fill(pen.face(nostril), _shade(skin, 0.45))


def _mouth(pen: _Pen, traits: Traits, expression: Expression) -> None:
    """Draw the lips, with teeth and tongue between them when they are apart."""
    mouth = traits.mouth
    wide = mouth.width * (1.0 + 0.18 * expression.smile)
    u = np.linspace(-1.0, 1.0, 17)
    bow = 1.0 - u**2
    # The corners rise with a smile.
    middle = mouth.y - 0.09 * expression.smile * (u**2 - 0.4)
    inner_top = middle - 0.4 * expression.gape * bow
    inner_bottom = middle + 0.6 * expression.gape * bow
    cupid = 1.0 - 0.35 * np.exp(-((u / 0.16) ** 2))
    top = inner_top - mouth.upper * bow * cupid
    bottom = inner_bottom + mouth.lower * bow**0.7
    pen.fill(pen.face(_band(u * wide, top, bottom)), mouth.colour)
    if expression.gape > 0.03:
        pen.fill(pen.face(_band(u * wide * 0.93, inner_top, inner_bottom)), (96, 30, 34))
        teeth = np.minimum(inner_top + 0.05, inner_bottom)
        pen.fill(pen.face(_band(u * wide * 0.85, inner_top, teeth)), WHITE)
    else:
        seam = np.stack((u * wide, middle), axis=1)
        pen.line(pen.face(seam), _shade(mouth.colour, 0.5), 0.022)


def _eye(pen: _Pen, traits: Traits, expression: Expression, side: float) -> None:
    """Draw the eye on one side: white, iris, pupil, lids."""
    eyes = traits.eyes
    u = np.linspace(-1.0, 1.0, 15)
    height = eyes.height * expression.lids
    tilt = -eyes.tilt * u
    top = tilt - height * (1.0 - u**2) ** 0.75
    bottom = tilt + 0.75 * height * (1.0 - u**2)
    x = u * eyes.width

    def place(x: Array, y: Array) -> Array:
        # u grows towards the ear on both sides.
        return pen.face(np.stack((side * (eyes.gap + x), eyes.y + y), axis=1))

    skin = traits.head.skin
    socket = _oval(0.0, -0.03, eyes.width * 1.2, eyes.height + 0.06)
    pen.fill(place(socket[:, 0], socket[:, 1]), (*_shade(skin, 0.7), 60))
    pen.fill(place(np.concatenate((x, x[::-1])), np.concatenate((top, bottom[::-1]))), WHITE)
    gaze_x = side * expression.gaze_x * (eyes.width - eyes.iris) * 0.7
    gaze_y = expression.gaze_y * 0.3 * eyes.height
    for radius, colour in ((eyes.iris, eyes.colour), (eyes.iris * 0.5, BLACK)):
        disc = _oval(gaze_x, gaze_y, radius, radius)
        # The lids cut the iris off.
        y = np.clip(disc[:, 1], np.interp(disc[:, 0], x, top), np.interp(disc[:, 0], x, bottom))
        pen.fill(place(disc[:, 0], y), colour)
    if expression.lids > 0.5:
        glint = place(np.array((gaze_x + 0.03 * side,)), np.array((gaze_y - 0.03,)))
        pen.dot(glint, 0.02, WHITE)
    pen.line(place(x, top), _shade(skin, 0.3), 0.02 + 0.03 * eyes.lashes)
    pen.line(place(x, bottom), (*_shade(skin, 0.5), 150), 0.012)
    crease = top - 0.045
    pen.line(place(x[2:-2], crease[2:-2]), (*_shade(skin, 0.55), 160), 0.014)


def _brow(
    pen: _Pen, traits: Traits, expression: Expression, side: float, hair_colour: Colour
) -> None:
    """Draw the brow on one side, darker than the hair and thinner towards the ear."""
    eyes = traits.eyes
    u = np.linspace(-1.0, 1.0, 9)
    middle = eyes.y - eyes.brow_gap - expression.brow - eyes.brow_tilt * u
    middle = middle - eyes.brow_arch * (1.0 - (u - 0.2) ** 2)
    half = 0.5 * eyes.brow_thickness * (1.0 - 0.6 * np.maximum(u, 0.0)) * (1.0 - 0.5 * u**8)
    x = side * (eyes.gap + u * eyes.brow_length)
    pen.fill(pen.face(_band(x, middle - half, middle + half)), _shade(hair_colour, 0.7))


# --- hair and beard ------------------------------------------------------------------------------

# How far the hairline lies below its usual height, at u = -1 (left temple) .. 1 (right temple)
# of a person parted on the right.
HAIRLINES: dict[str, Callable[[Array], Array]] = {
    "round": lambda u: 0.0 * u,
    "fringe": lambda u: 0.26 + 0.03 * np.cos(u * 25.0),
    "swept": lambda u: np.where(u > 0.45, 0.1, 0.12 + 0.22 * (0.45 - u)),
    "parted": lambda u: 0.3 * np.abs(u) - 0.1,
    "widow": lambda u: 0.16 * np.exp(-((u / 0.22) ** 2)) - 0.06,
    "receding": lambda u: 0.08 - 0.3 * np.exp(-(((np.abs(u) - 0.55) / 0.25) ** 2)),
}


def _hair_rim(pen: _Pen, hair: Hair, fullness: float, low: float, *, hat: bool) -> Array:
    """The outer edge of the hair in face units, from the left at y = `low` over the top."""
    end = np.arccos(np.clip(-low, -1.0, 1.0))
    turn = np.linspace(-end, end, 81)
    rim = np.stack((np.sign(turn) * pen.half_width(-np.cos(turn)), -np.cos(turn)), axis=1)
    swell = np.full_like(turn, 1.0 + fullness)
    if not hair.length:
        # Short hair lies close to the head beside the ears.
        swell = 1.0 + fullness * np.clip((end - np.abs(turn)) / 0.6, 0.1, 1.0)
    if not hat:
        swell += hair.lift * np.exp(-(((turn - 0.35 * hair.side) / 0.8) ** 2))
        if hair.edge == "curly":
            swell += 0.07 * np.abs(np.sin(turn * 5.5))
        elif hair.edge == "spiky":
            swell += 0.16 * np.abs((turn * 3.0) % 1.0 - 0.35) * np.exp(-((turn / 1.2) ** 2))
    return rim * swell[:, None]


def _front_hair(
    pen: _Pen,
    hair: Hair,
    fullness: float,
    colour: Colour,
    rng: np.random.Generator,
    *,
    hat: bool,
) -> None:
    """Draw the hair on top of the head, down to the hairline, and locks beside the face."""
    low = hair.sideburn
    rim = _hair_rim(pen, hair, fullness, low, hat=hat)
    u = np.linspace(1.0, -1.0, 61)
    top = hair.line_y + HAIRLINES[hair.line](u * hair.side)
    line = top + (low - top) * np.abs(u) ** (5.0 if hair.line == "fringe" else 3.5)
    x = u * 0.95 * float(pen.half_width(low))
    inner = np.stack((x, line), axis=1)
    pen.fill(np.concatenate((pen.flat(rim), pen.face(inner))), colour)
    if hair.length > 0.0:
        _locks(pen, hair, fullness, colour)
    _strands(pen, hair, colour, rng)


def _strands(pen: _Pen, hair: Hair, colour: Colour, rng: np.random.Generator) -> None:
    """Draw a few lighter and darker strands across the top of the head."""
    for share in np.linspace(-0.7, 0.7, 6):
        bend = np.linspace(0.0, 1.0, 6)
        x = (0.15 * hair.side + (share - 0.15 * hair.side) * bend**0.6) * 0.8
        y = -1.0 + (0.9 + hair.line_y) * bend + 0.03 * rng.normal()
        pen.line(
            pen.face(np.stack((x, y), axis=1)),
            (*_shade(colour, float(rng.choice((0.75, 1.3)))), 80),
            0.025,
        )


def _locks(pen: _Pen, hair: Hair, fullness: float, colour: Colour) -> None:
    """Draw the strands of long hair that fall before the ears."""
    bottom = min(hair.length, 1.15)
    ys = np.linspace(-0.35, bottom, 14)
    within = np.minimum(ys, 0.45)
    width = pen.half_width(within)
    share = (ys + 0.35) / (bottom + 0.35)
    outer_x = width * (1.0 + fullness) + 0.07 - 0.05 * share**6
    # The tips are rounded.
    inner_x = outer_x - (outer_x - 0.93 * width) * (1.0 - share**6)
    for side in (-1.0, 1.0):
        inner = np.stack((side * inner_x, ys), axis=1)
        outer = np.stack((side * outer_x, ys), axis=1)
        pen.fill(np.concatenate((pen.face(inner), pen.flat(outer[::-1]))), colour)


def _back_hair(
    pen: _Pen, hair: Hair, fullness: float, colour: Colour, rng: np.random.Generator
) -> None:
    """Draw long hair behind the head and the neck."""
    ys = np.linspace(-0.6, hair.length, 24)
    drop = np.clip((ys - 0.1) / 1.2, 0.0, 1.0)
    x = pen.half_width(np.minimum(ys, 0.1)) * (1.0 + fullness) + 0.05 + hair.flare * drop
    x = x * (1.0 - 0.3 * ((ys + 0.6) / (hair.length + 0.6)) ** 8)
    if hair.edge == "curly":
        x = x + 0.05 * np.sin(ys * 11.0)
    swing = 0.06 * rng.normal() * drop
    left = np.stack((-x + swing, ys), axis=1)
    right = np.stack((x + swing, ys), axis=1)
    tip = np.array(((float(swing[-1]), hair.length + 0.08),))
    shape = np.concatenate((left, tip, right[::-1]))
    pen.fill(pen.flat(shape), _shade(colour, 0.8))


def _hair_extra(pen: _Pen, hair: Hair, colour: Colour) -> None:
    """Draw a bun on top of the head, or a bunch on either side."""
    if hair.extra == "bun":
        pen.fill(pen.flat(_oval(0.1 * hair.side, -1.22 - hair.volume, 0.32, 0.28)), colour)
        return
    for side in (-1.0, 1.0):
        pen.fill(pen.flat(_oval(side * 1.05, -0.25, 0.3, 0.36)), colour)


def _beard(pen: _Pen, traits: Traits, colour: Colour) -> None:
    """Draw the beard on the jaw; what grows above the lip is drawn after the mouth."""
    kind, mouth = traits.beard, traits.mouth
    if kind in ("none", "moustache"):
        return
    if kind == "goatee":
        patch = _oval(0.0, 0.5 * (mouth.y + 0.99), mouth.width + 0.03, 0.5 * (1.06 - mouth.y))
        patch[:, 1] = np.clip(patch[:, 1], mouth.y - 0.02, 0.99)
        pen.fill(pen.face(patch), colour)
        return
    turn = np.linspace(-1.0, 1.0, 41)
    start = traits.hair.sideburn - 0.06
    below = np.arccos(-start) + (np.pi - np.arccos(-start)) * (1.0 - np.abs(turn))
    thick = 1.0 if kind == "stubble" else 1.03
    outer = np.stack((np.sign(turn) * pen.half_width(-np.cos(below)), -np.cos(below)), axis=1)
    u = turn[::-1]
    if kind == "chinstrap":
        inner = outer[::-1] * (0.84, 0.87)
    else:
        cheek = mouth.y - 0.13 + (start - mouth.y + 0.13) * np.abs(u) ** 4
        inner = np.stack((u * 0.93 * float(pen.half_width(start)), cheek), axis=1)
    ink = (*colour, 105) if kind == "stubble" else colour
    pen.fill(np.concatenate((pen.flat(outer * thick), pen.face(inner))), ink)


def _moustache(pen: _Pen, traits: Traits, expression: Expression, colour: Colour) -> None:
    """Draw the moustache between nose and mouth."""
    mouth = traits.mouth
    u = np.linspace(-1.0, 1.0, 15)
    wide = mouth.width * (1.12 + 0.15 * expression.smile)
    lip = mouth.y - 0.4 * expression.gape - mouth.upper
    bottom = lip + 0.03 - 0.06 * expression.smile * u**2 + 0.04 * u**2
    height = 0.13 * (1.0 - 0.9 * np.abs(u) ** 2.5) * (1.0 - 0.35 * np.exp(-((u / 0.12) ** 2)))
    pen.fill(pen.face(_band(u * wide, bottom - height, bottom)), colour)


# --- worn and held things ------------------------------------------------------------------------

# Half-width and half-height of a lens, how square it is (2: an ellipse), how far its top is cut.
LENSES = {
    "round": (0.23, 0.23, 2.0),
    "square": (0.24, 0.19, 6.0),
    "wide": (0.27, 0.15, 3.0),
    "browline": (0.25, 0.20, 3.0),
}


def _lens(traits: Traits, kind: str, side: float) -> Array:
    """The outline of a lens before the eye on one side, face units, closed."""
    wide, high, power = LENSES[kind]
    wide, high = wide * traits.glasses_size, high * traits.glasses_size
    # Neighbouring lenses leave room for the bridge of the nose.
    wide = min(wide, traits.eyes.gap - 0.035)
    turn = np.linspace(0.0, 2.0 * np.pi, 33)
    c, s = np.cos(turn), np.sin(turn)
    x = np.sign(c) * np.abs(c) ** (2.0 / power) * wide + side * traits.eyes.gap
    y = np.sign(s) * np.abs(s) ** (2.0 / power) * high + traits.eyes.y
    return np.stack((x, y), axis=1)


def _glasses_arms(pen: _Pen, traits: Traits) -> None:
    """Draw the arms of the glasses, which go under the hair."""
    y = traits.eyes.y
    for side in (-1.0, 1.0):
        hinge = np.abs(_lens(traits, traits.glasses, side)[:, 0]).max()
        temple = 0.95 * float(pen.half_width(y))
        if temple > hinge:
            arm = np.array(((side * hinge, y), (side * temple, y - 0.03)))
            pen.line(pen.face(arm), traits.frame_colour, traits.frame)


def _glasses(pen: _Pen, traits: Traits) -> None:
    """Draw glasses with faintly tinted lenses."""
    eyes = traits.eyes
    for side in (-1.0, 1.0):
        lens = _lens(traits, traits.glasses, side)
        pen.fill(pen.face(lens), (225, 240, 250, 40))
        pen.line(pen.face(lens), traits.frame_colour, traits.frame)
        if traits.glasses == "browline":
            upper = lens[lens[:, 1] < eyes.y - 0.05]
            pen.line(pen.face(upper), traits.frame_colour, traits.frame + 0.05)
    inner = eyes.gap - (np.abs(lens[:, 0]).max() - eyes.gap)
    bridge = np.array(((-inner, eyes.y - 0.04), (0.0, eyes.y - 0.07), (inner, eyes.y - 0.04)))
    pen.line(pen.face(bridge), traits.frame_colour, traits.frame)


def _sunglasses(pen: _Pen, traits: Traits, rng: np.random.Generator) -> None:
    kind = choose(rng, ("round", "square", "wide"))
    for side in (-1.0, 1.0):
        pen.fill(pen.face(_lens(traits, kind, side)), (28, 26, 34, 240))
    y = traits.eyes.y - 0.05
    x = np.linspace(-0.85, 0.85, 9) * float(pen.half_width(y))
    pen.line(pen.face(np.stack((x, np.full(9, y)), axis=1)), (28, 26, 34), 0.05)


def _hat(pen: _Pen, traits: Traits, rng: np.random.Generator) -> None:
    colour = _random_colour(rng)
    brim = traits.eyes.y - traits.eyes.brow_gap - rng.uniform(0.17, 0.3)
    end = np.arccos(-brim)
    turn = np.linspace(-end, end, 41)
    crown = np.stack((np.sign(turn) * pen.half_width(-np.cos(turn)), -np.cos(turn)), axis=1)
    u = np.linspace(1.0, -1.0, 21)
    edge = np.stack((u * 1.12 * float(pen.half_width(brim)), brim + 0.07 * (1 - u**2)), axis=1)
    pen.fill(pen.flat(np.concatenate((crown * (1.13, 1.22), edge))), colour)
    band = np.concatenate((edge, edge[::-1] - (0.0, 0.2)))
    pen.fill(pen.flat(band), _shade(colour, 0.75))


def _scarf(pen: _Pen, traits: Traits, rng: np.random.Generator) -> None:
    colour = _random_colour(rng)
    top = traits.mouth.y - rng.uniform(-0.02, 0.16)
    half = float(pen.half_width(top)) + 0.06
    cloth = _mirror(((0.0, top + 0.05), (half, top), (half + 0.12, 1.0), (half, 1.6), (0.0, 1.75)))
    pen.fill(pen.flat(_smooth(cloth)), colour)
    for y in (0.35, 0.65):
        fold = np.array(((-half, top + y - 0.1), (0.0, top + y), (half, top + y - 0.08)))
        pen.line(pen.flat(fold), (*_shade(colour, 0.6), 160), 0.04)


def _hand(pen: _Pen, traits: Traits, rng: np.random.Generator) -> None:
    """A hand held to one cheek, with three fingers up."""
    side = float(rng.choice((-1.0, 1.0)))
    skin = _shade(traits.head.skin, 0.93)
    x, y = side * rng.uniform(0.4, 0.7), rng.uniform(0.75, 1.1)
    for finger in (-0.24, -0.08, 0.08, 0.24):
        reach = rng.uniform(0.42, 0.6)
        bone = np.array(((x + finger, y), (x + finger * 1.2, y - reach)))
        pen.line(pen.flat(bone), _shade(skin, 0.8), 0.19)
        pen.line(pen.flat(bone), skin, 0.155)
        pen.dot(pen.flat(bone[1:]), 0.0775, skin)
    pen.fill(pen.flat(_oval(x, y + 0.1, 0.33, 0.3)), skin)
    pen.line(pen.flat(np.array(((x, y + 0.2), (x + side * 0.4, y + 2.0)))), skin, 0.4)


def _bar(pen: _Pen, _traits: Traits, rng: np.random.Generator) -> None:
    """Something out of focus between the camera and the face."""
    x, slope, half = rng.uniform(-0.8, 0.8), rng.uniform(-0.5, 0.5), rng.uniform(0.08, 0.2)
    ends = np.array(((x - half - slope, -3.0), (x + half - slope, -3.0)))
    pen.fill(pen.flat(np.concatenate((ends, -ends + (2 * x, 0.0)))), _random_colour(rng))


OCCLUDERS: dict[str, Callable[[_Pen, Traits, np.random.Generator], None]] = {
    "hat": _hat,
    "sunglasses": _sunglasses,
    "scarf": _scarf,
    "hand": _hand,
    "bar": _bar,
}


# --- background, light and camera ----------------------------------------------------------------


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A soft field of random colours with a few random shapes, at times out of focus."""
    patches = np.array([_random_colour(rng) for _ in range(9)], np.uint8).reshape(3, 3, 3)
    picture = Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(-0.2, 1.0, 2) * size
        wide, high = rng.uniform(0.1, 0.7, 2) * size
        box = (x, y, x + wide, y + high)
        colour = _random_colour(rng)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=colour)
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.01, 0.05)))
    return picture


def _photograph(picture: Image.Image, pose: Pose, rng: np.random.Generator) -> Image.Image:
    """Light the drawing and take it with an imperfect camera: blur, noise, JPEG."""
    size = picture.width
    light = np.asarray(picture, dtype=np.float32) / 255.0
    light *= _lighting(size, pose, rng)[:, :, None]
    # Tired colours, a colour cast, and the tone curve of the camera.
    grey = light.mean(axis=2, keepdims=True)
    fading = 1.0 if rng.random() < 0.08 else rng.uniform(0.0, 0.4)
    light = grey + (light - grey) * np.float32(1.0 - fading)
    warmth = rng.normal(0.0, 0.12)
    cast = np.array((warmth, 0.0, -warmth)) + rng.normal(0.0, 0.05, 3)
    light *= np.exp(cast).astype(np.float32)
    light = np.clip(light, 0.0, 1.0) ** np.float32(np.exp(rng.normal(0.0, 0.17)))
    light = (light - 0.5) * np.float32(rng.uniform(0.75, 1.05)) + np.float32(
        0.5 + rng.uniform(-0.1, 0.1)
    )
    noise = np.float32(rng.uniform(0.0, 0.035))
    light += noise * rng.standard_normal(light.shape, dtype=np.float32)
    picture = Image.fromarray((np.clip(light, 0.0, 1.0) * 255.0).astype(np.uint8))
    if rng.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9) * size / 96.0))
    squeezed = io.BytesIO()
    picture.save(squeezed, "JPEG", quality=int(rng.integers(35, 96)))
    return Image.open(squeezed).convert("RGB")


def _lighting(size: int, pose: Pose, rng: np.random.Generator) -> NDArray[np.float32]:
    """The brightness of every pixel (size, size): a slope over the picture and a lit side."""
    step = np.arange(size, dtype=np.float32) + 0.5
    x = (step - np.float32(pose.x / SUPERSAMPLING)) * np.float32(SUPERSAMPLING / pose.scale)
    y = (step - np.float32(pose.y / SUPERSAMPLING)) * np.float32(SUPERSAMPLING / pose.scale)
    heading = rng.uniform(0.0, 2.0 * np.pi)
    along = np.float32(np.cos(heading)) * x[None, :] + np.float32(np.sin(heading)) * y[:, None]
    # The head's round shape is lit more strongly than the scene, fading beyond its outline.
    roundness = np.exp(-(((x[None, :] ** 2) * np.float32(1.5) + y[:, None] ** 2) ** 2))
    slope = np.float32(rng.uniform(0.0, 0.25)) + np.float32(rng.uniform(0.05, 0.4)) * roundness
    field: NDArray[np.float32] = np.exp(slope * along + np.float32(rng.normal(-0.03, 0.15)))
    return field


# --- shapes and colours --------------------------------------------------------------------------


def _width_at(head: Head, y: Array) -> Array:
    """The half-width of the head at heights y, over that of a round head of half-width 1."""
    shape = (
        1.0
        + head.temple * np.exp(-(((y + 0.55) / 0.35) ** 2))
        + head.jaw * np.exp(-(((y - 0.65) / 0.3) ** 2))
        + head.chin * np.exp(-(((y - 1.0) / 0.16) ** 2))
    )
    return np.asarray(head.width * shape)


def _oval(x: float, y: float, wide: float, high: float) -> Array:
    turn = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    return np.stack((x + wide * np.cos(turn), y + high * np.sin(turn)), axis=1)


def _band(x: Array, top: Array, bottom: Array) -> Array:
    """The polygon between two curves over the same x."""
    return np.stack((np.concatenate((x, x[::-1])), np.concatenate((top, bottom[::-1]))), axis=1)


def _both_sides(right: Array) -> Array:
    """The polygon whose right half is given, mirrored at x = 0."""
    return np.concatenate((right, right[::-1] * (-1.0, 1.0)))


def _mirror(right: Sequence[tuple[float, float]]) -> Array:
    return _both_sides(np.array(right))


def _smooth(corners: Array) -> Array:
    """A closed curve through the corners (Catmull-Rom, four steps a corner)."""
    t = np.linspace(0.0, 1.0, 4, endpoint=False)[None, :, None]
    a, b, c, d = (np.roll(corners, shift, axis=0)[:, None, :] for shift in (1, 0, -1, -2))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.asarray(curve.reshape(-1, 2))


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(255, round(part * factor)) for part in colour)


def _vary(colour: Colour, rng: np.random.Generator, amount: float) -> Colour:
    return _shade(colour, float(np.exp(rng.normal(0.0, amount))))


def _random_colour(rng: np.random.Generator) -> Colour:
    """A random colour, softened as paint and cloth are."""
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return mix((red, green, blue), ((red + green + blue) // 3,) * 3, 0.5)
