"""Draw the demo faces: people with stable traits, and pictures of them.

A face lives in *face units*: the origin is the middle of the head, x points right, y points down,
the crown is at y = -1 and the chin at y = +1. Every part is a polygon in face units which the view
carries to pixels. The head is taken as a solid that is as deep as it is wide at every height, so
that the features of a turned head slide towards its outline and never leave it.

Who a person is lies in shapes. The light, the camera, the background and the clothes are drawn
afresh for every picture, so that colours say little about the person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]
Colour = tuple[int, ...]  # red, green, blue and perhaps opacity, 0..255
Kind = TypeVar("Kind")

# Shapes are drawn this much larger and averaged down, which smooths their edges.
SUPERSAMPLING = 2

SKIN_TONES = ((255, 226, 203), (240, 198, 165), (222, 170, 128), (190, 130, 90), (128, 84, 58))
HAIR_COLOURS = ((38, 32, 34), (74, 50, 38), (122, 82, 52), (150, 72, 40), (206, 160, 92))
EYE_COLOURS = ((84, 56, 40), (84, 128, 84), (62, 110, 150), (110, 116, 124))
LIP_RED, DARK, WHITE = (188, 62, 70), (20, 16, 18), (250, 248, 244)


@dataclass(frozen=True)
class Traits:
    """What makes one person: every trait beside its range, or its options (repeated: likelier).

    Lengths are in face units, colours are places (0..1) in the palettes above.
    """

    skin: Annotated[float, (0.0, 1.0)]
    head_width: Annotated[float, (0.66, 0.86)]  # half-width at the cheeks
    jaw: Annotated[float, (-0.12, 0.18)]  # share added to the width
    chin: Annotated[float, (-0.2, 0.45)]  # share added to the width
    ear_size: Annotated[float, (0.15, 0.27)]
    eye_y: Annotated[float, (-0.10, 0.10)]
    eye_gap: Annotated[float, (0.27, 0.38)]  # from the middle of the face
    eye_width: Annotated[float, (0.13, 0.20)]  # half-width
    eye_height: Annotated[float, (0.065, 0.135)]  # half-height
    eye_tilt: Annotated[float, (-0.05, 0.06)]  # how far the outer corner rises
    eye_colour: Annotated[float, (0.0, 1.0)]
    brow_gap: Annotated[float, (0.15, 0.27)]  # from the eye
    brow_length: Annotated[float, (0.15, 0.25)]  # half-length
    brow_thickness: Annotated[float, (0.022, 0.085)]
    brow_arch: Annotated[float, (-0.01, 0.09)]
    brow_tilt: Annotated[float, (-0.09, 0.04)]
    nose_length: Annotated[float, (0.28, 0.46)]
    nose_width: Annotated[float, (0.09, 0.22)]
    mouth_gap: Annotated[float, (0.19, 0.26)]  # from the nose
    mouth_width: Annotated[float, (0.16, 0.34)]  # half-width
    lips: Annotated[float, (0.02, 0.09)]  # thickness of each
    hair: Annotated[str, ("short", "short", "short", "bald", "long", "long", "bun")]
    hair_colour: Annotated[float, (0.0, 1.0)]
    hair_line: Annotated[float, (-0.75, -0.35)]
    hair_slope: Annotated[float, (-0.25, 0.25)]  # of the hairline, to one side
    hair_peak: Annotated[float, (-0.25, 0.2)]  # how far the middle of the hairline hangs
    hair_volume: Annotated[float, (0.03, 0.25)]
    hair_curls: Annotated[float, (-0.08, 0.08)]  # none below 0
    hair_length: Annotated[float, (0.55, 1.6)]  # where long hair ends
    sideburn: Annotated[float, (-0.15, 0.2)]  # where the hair beside the face ends
    beard: Annotated[str, ("none", "none", "moustache", "stubble", "full")]
    glasses: Annotated[str, ("none", "none", "none", "round", "square")]
    glasses_size: Annotated[float, (0.85, 1.2)]


@dataclass(frozen=True)
class View:
    """How one picture shows a person: pose and expression, each within its range."""

    angle: Annotated[float, (-0.25, 0.25)]  # radians, turn in the picture's plane
    yaw: Annotated[float, (-0.4, 0.4)]  # radians, positive looks to the right of the picture
    pitch: Annotated[float, (-0.22, 0.22)]  # radians, positive looks down
    scale: Annotated[float, (0.27, 0.36)]  # of a face unit, as a share of the picture
    x: Annotated[float, (0.43, 0.57)]  # the middle of the head, as a share of the picture
    y: Annotated[float, (0.45, 0.57)]
    smile: Annotated[float, (-0.5, 1.0)]  # -1 (sad) .. 1 (glad)
    gape: Annotated[float, (-0.2, 0.17)]  # how far the lips are apart, closed below 0
    brow: Annotated[float, (-0.05, 0.07)]  # how far the brows are raised
    lids: Annotated[float, (0.6, 1.1)]  # 0 (closed) .. about 1 (open)
    gaze_x: Annotated[float, (-1.0, 1.0)]
    gaze_y: Annotated[float, (-0.5, 0.5)]
    cover: Annotated[str, ("none",) * 9 + ("hat", "sunglasses", "bar")]


def draw_traits(seed: int, person: int) -> Traits:
    """Draw the traits of person number `person` of the demo set `seed`, both >= 0.

    The traits depend on these two numbers alone.

    Raises:
        ValueError: a number is negative.
    """
    seeds = np.random.SeedSequence(seed, spawn_key=(0, person))
    return _sample(Traits, np.random.default_rng(seeds))


def draw_face(traits: Traits, rng: np.random.Generator, size: int = 96) -> Image.Image:
    """Draw one RGB picture of size x size pixels of the person with these traits.

    Pose, expression, light, background, clothes, occlusion and the faults of the camera come from
    `rng`; with the same state of `rng` the same picture comes out.
    """
    view = _sample(View, rng)
    large = (size * SUPERSAMPLING, size * SUPERSAMPLING)
    canvas = _background(rng, size).resize(large, Image.Resampling.BILINEAR)
    _Portrait(canvas, traits, view, rng).draw()
    return _photograph(canvas.reduce(SUPERSAMPLING), view, rng)


def _sample(kind: type[Kind], rng: np.random.Generator) -> Kind:
    """Draw every field of the dataclass from its range or its options."""
    values = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        (options,) = hint.__metadata__
        is_range = hint.__origin__ is float
        values[name] = rng.uniform(*options) if is_range else options[rng.integers(len(options))]
    return kind(**values)


class _Portrait:
    """Draws a person on a canvas, part by part from the back to the front."""

    def __init__(
        self, canvas: Image.Image, traits: Traits, view: View, rng: np.random.Generator
    ) -> None:
        # An RGBA pen on an RGB canvas blends colours of four parts into the picture.
        self.pen = ImageDraw.Draw(canvas, "RGBA")
        self.traits, self.view, self.rng = traits, view, rng
        self.unit = view.scale * canvas.width  # pixels
        self.middle = np.array((view.x, view.y)) * canvas.width
        # The right half of the head's outline, from the crown to the chin.
        turn = np.linspace(0.0, np.pi, 49)
        self.ys = -np.cos(turn)
        jaw = traits.jaw * np.exp(-(((self.ys - 0.65) / 0.3) ** 2))
        chin = traits.chin * np.exp(-(((self.ys - 1.0) / 0.16) ** 2))
        self.xs = traits.head_width * np.maximum(np.sin(turn), 0.0) ** 0.8 * (1.0 + jaw + chin)
        self.nose_y = traits.eye_y + traits.nose_length
        self.mouth_y = min(self.nose_y + traits.mouth_gap, 0.72)
        self.beard = traits.beard if traits.hair in ("short", "bald") else "none"
        self.skin = _blend(SKIN_TONES, traits.skin)
        self.hair = _shade(_blend(HAIR_COLOURS, traits.hair_colour), np.exp(rng.normal(0.0, 0.15)))

    def draw(self) -> None:
        """Draw the whole person, and what covers the face."""
        self._body()
        self._head()
        self._nose()
        self._mouth()
        for side in (-1.0, 1.0):
            self._eye(side)
        if self.traits.hair != "bald":
            self._front_hair()
        self._glasses()
        self._cover()

    def half_width(self, y: Array | float) -> Array:
        """The half-width of the head at height y, 0 above the crown and below the chin."""
        return np.asarray(np.interp(y, self.ys, self.xs, left=0.0, right=0.0))

    def flat(self, x: Array | float, y: Array | float) -> Array:
        """Pixels (n, 2) of points in the plane of the outline: they turn with the picture only."""
        points = np.stack(np.broadcast_arrays(x, y), axis=-1) * self.unit
        cos, sin = np.cos(self.view.angle), np.sin(self.view.angle)
        return np.asarray(points @ ((cos, sin), (-sin, cos)) + self.middle)

    def front(self, x: Array | float, y: Array | float) -> Array:
        """Pixels (n, 2) of points on the front of the head."""
        depth = np.sqrt(np.maximum(self.half_width(y) ** 2 - np.square(x), 0.0))
        yaw, pitch = self.view.yaw, self.view.pitch
        ahead = depth * np.cos(yaw) - x * np.sin(yaw)
        return self.flat(x * np.cos(yaw) + depth * np.sin(yaw), y + ahead * np.sin(pitch))

    def fill(self, pixels: Array, colour: Colour) -> None:
        """Fill the polygon with these corners, pixels (n, 2)."""
        self.pen.polygon(pixels.ravel().tolist(), fill=colour)

    def line(self, pixels: Array, colour: Colour, width: float) -> None:
        """Draw an open line through the pixels (n, 2), `width` face units thick."""
        thick = max(1, round(width * self.unit))
        self.pen.line(pixels.ravel().tolist(), fill=colour, width=thick, joint="curve")

    def _body(self) -> None:
        """Draw the clothes, the hair behind the head, the neck and the ears."""
        traits, rng = self.traits, self.rng
        half = 0.52 * traits.head_width
        wide, fall = rng.uniform(1.15, 1.6), rng.uniform(1.5, 1.65)
        clothes = _mirror(np.array((0.3, 0.75, wide, wide)), np.array((1.17, 1.33, fall, 4.0)))
        self.fill(self.flat(*clothes), _random_colour(rng))
        if traits.hair == "long":
            y = np.linspace(-0.6, traits.hair_length, 24)
            x = self.half_width(np.minimum(y, 0.1)) * (1.0 + traits.hair_volume) + 0.05
            x = x + max(traits.hair_curls, 0.0) * np.sin(11.0 * y)
            self.fill(self.flat(*_mirror(x, y)), _shade(self.hair, 0.8))
        if traits.hair == "bun" and self.view.cover != "hat":
            self.fill(self.flat(*_oval(0.0, -1.2 - traits.hair_volume, 0.32, 0.28)), self.hair)
        neck = _mirror(half * np.array((1.0, 1.0, 1.25, 0.8)), np.array((0.5, 1.1, 1.22, 1.42)))
        self.fill(self.flat(*neck), _shade(self.skin, 0.8))
        for side in (-1.0, 1.0):
            x = side * (traits.head_width + 0.02) - 0.16 * np.sin(self.view.yaw)
            y = 0.08 - 0.3 * np.sin(self.view.pitch)
            for share, light in ((1.0, 0.92), (0.6, 0.78)):
                ear = _oval(x, y, 0.13 * share, traits.ear_size * share)
                self.fill(self.flat(*ear), _shade(self.skin, light))

    def _head(self) -> None:
        """Draw the bare head and the beard on the jaw; a moustache is drawn with the mouth."""
        traits = self.traits
        self.fill(self.flat(*_mirror(self.xs, self.ys)), self.skin)
        if self.beard in ("full", "stubble"):
            top, cheek = traits.sideburn - 0.06, self.mouth_y - 0.13
            y = np.linspace(top, 1.0, 30)
            outer = self.flat(*_mirror(1.02 * self.half_width(y), y))
            u = np.linspace(-1.0, 1.0, 41)
            inner = self.front(u * 0.93 * self.half_width(top), cheek + (top - cheek) * u**4)
            opacity = 255 if self.beard == "full" else 105
            self.fill(np.concatenate((outer, inner)), (*self.hair, opacity))

    def _nose(self) -> None:
        """Draw the nose: a shaded bridge that widens to the wings, and the nostrils."""
        y, wide = self.nose_y, self.traits.nose_width
        bridge = np.array((0.03, 0.05, wide, 0.9 * wide, 0.3 * wide))
        shape = _mirror(bridge, y + np.array((-0.36, -0.18, -0.04, 0.04, 0.07)))
        self.fill(self.front(*shape), _shade(self.skin, 0.84))
        for side in (-1.0, 1.0):
            nostril = _oval(side * 0.5 * wide, y + 0.03, 0.032, 0.02)
            self.fill(self.front(*nostril), _shade(self.skin, 0.45))

    def _mouth(self) -> None:
        """Draw the lips, the teeth between them when they are apart, and the moustache."""
        traits, view = self.traits, self.view
        gape = max(view.gape, 0.0)
        u = np.linspace(-1.0, 1.0, 17)
        x, bow = u * traits.mouth_width * (1.0 + 0.18 * view.smile), 1.0 - u**2
        # The corners rise with a smile.
        middle = self.mouth_y - 0.09 * view.smile * (u**2 - 0.4)
        upper, lower = middle - 0.4 * gape * bow, middle + 0.6 * gape * bow
        top = upper - traits.lips * bow * (1.0 - 0.35 * np.exp(-((u / 0.16) ** 2)))
        lips = _blend((self.skin, LIP_RED), 0.5)
        self.fill(self.front(*_band(x, top, lower + traits.lips * bow)), lips)
        self.fill(self.front(*_band(x, upper - 0.01, lower + 0.01)), _shade(lips, 0.4))
        if gape > 0.03:
            teeth = _band(0.85 * x, upper, np.minimum(upper + 0.05, lower))
            self.fill(self.front(*teeth), WHITE)
        if self.beard in ("moustache", "full"):
            bottom = top.min() + 0.03 - 0.04 * view.smile * u**2
            height = 0.13 * (1.0 - 0.9 * np.abs(u) ** 2.5)
            hairs = _band(u * (traits.mouth_width + 0.1), bottom - height, bottom)
            self.fill(self.front(*hairs), self.hair)

    def _eye(self, side: float) -> None:
        """Draw the eye on one side and its brow; u grows towards the ear on both sides."""
        traits, view = self.traits, self.view
        u = np.linspace(-1.0, 1.0, 15)
        x = side * (traits.eye_gap + u * traits.eye_width)
        height, middle = traits.eye_height * view.lids, traits.eye_y - traits.eye_tilt * u
        top, bottom = middle - height * (1.0 - u**2), middle + 0.75 * height * (1.0 - u**2)
        self.fill(self.front(*_band(x, top, bottom)), WHITE)
        gaze_x, gaze_y = side * view.gaze_x * 0.3, traits.eye_y + 0.03 * view.gaze_y
        for radius, colour in ((0.09, _blend(EYE_COLOURS, traits.eye_colour)), (0.045, DARK)):
            iris, iris_y = _oval(gaze_x, gaze_y, radius / traits.eye_width, radius)
            # The lids cut the iris off.
            seen = np.clip(iris_y, np.interp(iris, u, top), np.interp(iris, u, bottom))
            self.fill(self.front(side * (traits.eye_gap + iris * traits.eye_width), seen), colour)
        self.line(self.front(x, top), _shade(self.skin, 0.3), 0.03)
        brow = traits.eye_y - traits.brow_gap - view.brow - traits.brow_tilt * u
        brow = brow - traits.brow_arch * (1.0 - u**2)
        half = 0.5 * traits.brow_thickness * (1.0 - 0.6 * np.maximum(u, 0.0))
        x = side * (traits.eye_gap + u * traits.brow_length)
        self.fill(self.front(*_band(x, brow - half, brow + half)), _shade(self.hair, 0.7))

    def _front_hair(self) -> None:
        """Draw the hair on top of the head, down to the hairline, and locks beside the face."""
        traits, low = self.traits, self.traits.sideburn
        end = np.arccos(-low)
        turn = np.linspace(-end, end, 81)
        # Hair lies close to the head beside the ears.
        volume = traits.hair_volume * np.clip((end - np.abs(turn)) / 0.6, 0.1, 1.0)
        volume = 1.0 + volume + max(traits.hair_curls, 0.0) * np.abs(np.sin(turn * 5.5))
        rim = self.half_width(-np.cos(turn)) * np.sign(turn)
        outer = self.flat(rim * volume, -np.cos(turn) * volume)
        u = np.linspace(1.0, -1.0, 61)
        line = traits.hair_line + traits.hair_slope * u
        line = line + traits.hair_peak * np.exp(-((u / 0.3) ** 2))
        inner = self.front(u * 0.95 * self.half_width(low), line + (low - line) * u**4)
        self.fill(np.concatenate((outer, inner)), self.hair)
        if traits.hair == "long":
            y = np.linspace(-0.35, min(traits.hair_length, 1.15), 14)
            width = self.half_width(np.minimum(y, 0.45))
            far = width * (1.0 + traits.hair_volume) + 0.05
            for side in (-1.0, 1.0):
                lock = (self.front(side * 0.93 * width, y), self.flat(side * far, y)[::-1])
                self.fill(np.concatenate(lock), self.hair)

    def _glasses(self) -> None:
        """Draw the person's glasses, or dark ones that hide the eyes."""
        traits, dark = self.traits, self.view.cover == "sunglasses"
        if not dark and (traits.glasses == "none" or self.rng.random() < 0.15):
            return
        wide, high, power = (0.25, 0.18, 6.0) if traits.glasses == "square" else (0.23, 0.23, 2.0)
        # Neighbouring lenses leave room for the bridge of the nose.
        wide = min(wide * traits.glasses_size, traits.eye_gap - 0.035)
        temple = 0.95 * float(self.half_width(traits.eye_y))
        for side in (-1.0, 1.0):
            x = side * traits.eye_gap
            lens = _oval(x, traits.eye_y, wide, high * traits.glasses_size, power)
            self.fill(self.front(*lens), (*DARK, 255 if dark else 20))
            self.line(self.front(*lens), DARK, 0.03)
            for start, stop in ((0.0, x - side * wide), (x + side * wide, side * temple)):
                self.line(self.front(np.array((start, stop)), traits.eye_y), DARK, 0.03)

    def _cover(self) -> None:
        """Draw a hat, or a bar between the camera and the face."""
        rng = self.rng
        if self.view.cover == "hat":
            y = np.linspace(-1.0, rng.uniform(-0.5, -0.35), 20)
            crown = 1.2 * self.half_width(y) + 0.05
            self.fill(self.flat(*_mirror(crown, 1.2 * y + 0.1)), _random_colour(rng))
        elif self.view.cover == "bar":
            x, slope, half = rng.uniform(-0.8, 0.8), rng.uniform(-0.5, 0.5), rng.uniform(0.08, 0.2)
            corners = x + np.array((-half - slope, half - slope, half + slope, slope - half))
            self.fill(self.flat(corners, np.array((-3.0, -3.0, 3.0, 3.0))), _random_colour(rng))


# --- background, light and camera ----------------------------------------------------------------


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A soft field of random colours with a few random shapes, out of focus."""
    patches = np.array([_random_colour(rng) for _ in range(9)], np.uint8).reshape(3, 3, 3)
    picture = Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 7))):
        x, y, wide, high = rng.uniform((-0.2, -0.2, 0.1, 0.1), (1.0, 1.0, 0.7, 0.7)) * size
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((x, y, x + wide, y + high), fill=_random_colour(rng))
    return picture.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.0, 0.04)))


def _photograph(picture: Image.Image, view: View, rng: np.random.Generator) -> Image.Image:
    """Light the drawing and take it with an imperfect camera: tones, colours, noise and blur."""
    size = picture.width
    step = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = (step[None, :] - view.x) / view.scale, (step[:, None] - view.y) / view.scale
    heading = rng.uniform(0.0, 2.0 * np.pi)
    along = np.cos(heading) * x + np.sin(heading) * y
    # The head's round shape is lit more strongly than the scene, fading beyond its outline.
    slope = rng.uniform(0.0, 0.25) + rng.uniform(0.05, 0.4) * np.exp(-((1.5 * x**2 + y**2) ** 2))
    lighting = np.exp(slope * along + rng.normal(-0.03, 0.15))
    light = np.asarray(picture, dtype=np.float64) / 255.0 * lighting[:, :, None]
    grey = light.mean(axis=2, keepdims=True)
    light = light + (grey - light) * (1.0 if rng.random() < 0.08 else rng.uniform(0.0, 0.4))
    warmth = rng.normal(0.0, 0.12)
    light *= np.exp(np.array((warmth, 0.0, -warmth)) + rng.normal(0.0, 0.05, 3))
    light = np.clip(light, 0.0, 1.0) ** np.exp(rng.normal(0.0, 0.17))
    light = (light - 0.5) * rng.uniform(0.75, 1.05) + rng.uniform(0.4, 0.6)
    light += rng.uniform(0.0, 0.035) * rng.standard_normal(light.shape)
    picture = Image.fromarray((np.clip(light, 0.0, 1.0) * 255.0).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.6) * size / 96.0))


# --- shapes and colours --------------------------------------------------------------------------


def _oval(x: float, y: float, wide: float, high: float, power: float = 2.0) -> tuple[Array, Array]:
    """The outline of a superellipse: power 2 is an ellipse, a high power a rounded box."""
    turn = np.linspace(0.0, 2.0 * np.pi, 33)
    cos, sin = np.cos(turn), np.sin(turn)
    return (
        x + wide * np.sign(cos) * np.abs(cos) ** (2.0 / power),
        y + high * np.sign(sin) * np.abs(sin) ** (2.0 / power),
    )


def _band(x: Array, top: Array, bottom: Array) -> tuple[Array, Array]:
    """The polygon between two curves over the same x."""
    return np.concatenate((x, x[::-1])), np.concatenate((top, bottom[::-1]))


def _mirror(x: Array, y: Array) -> tuple[Array, Array]:
    """The polygon whose right half is given, mirrored at x = 0."""
    return np.concatenate((x, -x[::-1])), np.concatenate((y, y[::-1]))


def _blend(palette: Sequence[Colour], place: float) -> Colour:
    """The colour at `place` (0..1) of a smooth run through the palette."""
    steps = np.arange(len(palette))
    parts = np.array(palette).T
    return tuple(round(np.interp(place * steps[-1], steps, part)) for part in parts)


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(255, round(part * factor)) for part in colour)


def _random_colour(rng: np.random.Generator) -> Colour:
    """A random colour, softened as paint and cloth are."""
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return _blend(((red, green, blue), ((red + green + blue) // 3,) * 3), 0.5)
