"""The people of the demo faces: what makes each one look as they do.

Lengths are in face units, see `siamese.demo.face_drawing`: half the height of the head is 1, the
middle of the head is the origin and y points down. Colours are (red, green, blue), 0..255.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, ...]

SKIN_TONES = ((255, 226, 203), (240, 198, 165), (222, 170, 128), (190, 130, 90), (128, 84, 58))
HAIR_COLOURS = ((38, 32, 34), (74, 50, 38), (122, 82, 52), (150, 72, 40), (206, 160, 92))
EYE_COLOURS = ((84, 56, 40), (62, 110, 150), (84, 128, 84), (110, 116, 124))
FRAME_COLOURS = ((36, 34, 40), (120, 52, 40), (60, 70, 110), (150, 120, 60))
LIP_RED = (188, 62, 70)


@dataclass(frozen=True)
class Head:
    """The head: lengths in face units; temple, jaw and chin are shares added to an egg's width."""

    width: float  # half-width at the cheeks
    temple: float
    jaw: float
    chin: float
    ear_size: float
    ear_out: float
    skin: Colour
    blush: float  # 0..1
    folds: float  # 0..1, strength of the lines beside the mouth
    marks: tuple[tuple[float, float, float], ...]  # x, y, radius of every freckle and mole


@dataclass(frozen=True)
class Eyes:
    """Eyes and brows, lengths in face units."""

    y: float
    gap: float  # from the middle of the face to the middle of an eye
    width: float  # half-width
    height: float  # half-height when open
    tilt: float  # how far the outer corner rises
    iris: float
    colour: Colour
    lashes: float  # 0..1
    brow_gap: float
    brow_length: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float


@dataclass(frozen=True)
class Nose:
    """The nose, lengths in face units."""

    y: float  # height of the nostrils
    width: float
    bridge: float
    tip: float  # how far the tip hangs below the nostrils


@dataclass(frozen=True)
class Mouth:
    """The mouth, lengths in face units."""

    y: float
    width: float  # half-width
    upper: float
    lower: float
    colour: Colour


@dataclass(frozen=True)
class Hair:
    """The hair of the head, lengths in face units."""

    line: str  # a key of HAIRLINES, or "bald"
    line_y: float
    side: float  # -1 or +1: the side of the parting
    edge: str  # "smooth", "curly" or "spiky"
    extra: str  # "none", "bun" or "bunches"
    volume: float
    lift: float  # extra height on top
    length: float  # y where long hair ends; 0 for short hair
    flare: float
    sideburn: float  # y where the hair ends beside the face
    colour: Colour


@dataclass(frozen=True)
class Traits:
    """What makes one person."""

    head: Head
    eyes: Eyes
    nose: Nose
    mouth: Mouth
    hair: Hair
    beard: str  # "none", "stubble", "moustache", "goatee", "full" or "chinstrap"
    glasses: str  # "none", "round", "square", "wide" or "browline"
    glasses_size: float
    frame: float  # thickness of the frame
    frame_colour: Colour


def draw_traits(seed: int, person: int) -> Traits:
    """Draw the traits of person number `person` of the demo set `seed`, both >= 0.

    The traits depend on these two numbers alone.

    Raises:
        ValueError: a number is negative.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, person)))
    head = _draw_head(rng)
    eyes = _draw_eyes(rng)
    nose = Nose(
        y=eyes.y + rng.uniform(0.28, 0.46),
        width=rng.uniform(0.09, 0.22),
        bridge=rng.uniform(0.03, 0.08),
        tip=rng.uniform(-0.03, 0.07),
    )
    mouth = Mouth(
        y=min(nose.y + rng.uniform(0.19, 0.30), 0.72),
        width=rng.uniform(0.16, 0.34),
        upper=rng.uniform(0.015, 0.075),
        lower=rng.uniform(0.03, 0.10),
        colour=mix(head.skin, LIP_RED, rng.uniform(0.35, 0.75)),
    )
    hair = _draw_hair_traits(rng)
    beards = ("none", "stubble", "moustache", "goatee", "full", "chinstrap")
    return Traits(
        head=head,
        eyes=eyes,
        nose=nose,
        mouth=mouth,
        hair=hair,
        beard="none" if hair.length else choose(rng, beards, (5, 2, 2, 2, 2, 1)),
        glasses=choose(rng, ("none", "round", "square", "wide", "browline"), (6, 1, 1, 1, 1)),
        glasses_size=rng.uniform(0.85, 1.2),
        frame=rng.uniform(0.02, 0.05),
        frame_colour=FRAME_COLOURS[rng.integers(len(FRAME_COLOURS))],
    )


def _draw_head(rng: np.random.Generator) -> Head:
    return Head(
        width=rng.uniform(0.66, 0.86),
        temple=rng.uniform(-0.10, 0.10),
        jaw=rng.uniform(-0.12, 0.18),
        chin=rng.uniform(-0.2, 0.45),
        ear_size=rng.uniform(0.15, 0.27),
        ear_out=rng.uniform(0.02, 0.11),
        skin=blend(SKIN_TONES, rng.uniform(0.0, 1.0)),
        blush=rng.uniform(0.0, 1.0) ** 2,
        folds=max(0.0, rng.uniform(-1.0, 1.0)),
        marks=_draw_marks(rng),
    )


def _draw_marks(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Draw freckles (some people) and up to two moles."""
    marks = []
    if rng.random() < 0.2:
        for _ in range(int(rng.integers(14, 28))):
            side = rng.choice((-1.0, 1.0))
            x, y = side * rng.normal(0.33, 0.11), rng.normal(0.26, 0.08)
            marks.append((float(x), float(y), float(rng.uniform(0.012, 0.02))))
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform(-0.5, 0.5), rng.choice((rng.uniform(0.2, 0.65), -0.45))
        marks.append((float(x), float(y), float(rng.uniform(0.025, 0.045))))
    return tuple(marks)


def _draw_eyes(rng: np.random.Generator) -> Eyes:
    return Eyes(
        y=rng.uniform(-0.10, 0.10),
        gap=rng.uniform(0.27, 0.38),
        width=rng.uniform(0.13, 0.20),
        height=rng.uniform(0.065, 0.135),
        tilt=rng.uniform(-0.05, 0.06),
        iris=rng.uniform(0.075, 0.11),
        colour=EYE_COLOURS[rng.integers(len(EYE_COLOURS))],
        lashes=rng.uniform(0.0, 1.0) ** 2,
        brow_gap=rng.uniform(0.15, 0.27),
        brow_length=rng.uniform(0.15, 0.25),
        brow_thickness=rng.uniform(0.022, 0.085),
        brow_arch=rng.uniform(-0.01, 0.09),
        brow_tilt=rng.uniform(-0.09, 0.04),
    )


def _draw_hair_traits(rng: np.random.Generator) -> Hair:
    long_haired = rng.random() < 0.42
    lines = ("round", "fringe", "swept", "parted", "widow", "receding", "bald")
    line = choose(rng, lines, (2, 3, 3, 3, 1, 0, 0) if long_haired else (2, 1, 3, 1, 2, 2, 1))
    edge = choose(rng, ("smooth", "curly", "spiky"), (4, 2, 0) if long_haired else (4, 3, 2))
    return Hair(
        line=line,
        line_y=rng.uniform(-0.68, -0.5),
        side=float(rng.choice((-1.0, 1.0))),
        edge=edge,
        extra=choose(rng, ("none", "bun", "bunches"), (4, 1, 1) if long_haired else (1, 0, 0)),
        volume=rng.uniform(0.05, 0.26) if edge == "curly" else rng.uniform(0.03, 0.15),
        lift=max(0.0, rng.uniform(-0.15, 0.18)),
        length=rng.uniform(0.55, 1.6) if long_haired else 0.0,
        flare=rng.uniform(-0.05, 0.3),
        sideburn=rng.uniform(-0.15, 0.2),
        colour=blend(HAIR_COLOURS, rng.uniform(0.0, 1.0)),
    )


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """The colour `share` (0..1) of the way from one colour to the other."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def blend(palette: Sequence[Colour], place: float) -> Colour:
    """The colour at `place` (0..1) of a smooth run through the palette."""
    step = place * (len(palette) - 1)
    low = min(int(step), len(palette) - 2)
    return mix(palette[low], palette[low + 1], step - low)


def choose(
    rng: np.random.Generator, options: Sequence[str], weights: Sequence[float] | None = None
) -> str:
    """One of the options, with chances in proportion to the weights."""
    chances = None if weights is None else np.array(weights) / np.sum(weights)
    return options[int(rng.choice(len(options), p=chances))]
