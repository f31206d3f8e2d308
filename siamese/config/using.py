"""Every setting of siamese-use: a dataclass per kind of command, with one line of help each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from siamese.config.common import LimitSettings, PrecisionName, ScoringName
from siamese.config.evaluation import Resamples, Score
from siamese.config.ranges import NonNegativeInt, OpenUnit, PositiveInt, check_values
from siamese.errors import UserError


@dataclass
class UseSettings:
    """Which model is used, and how it runs."""

    checkpoint: str | None = None
    """The model: a checkpoint, an exported model (.onnx, .safetensors) or a run's name; null: the
    gallery's own, else the newest checkpoints/*/best.pt."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    precision: PrecisionName = "auto"
    """Arithmetic of the network; auto: fp32 where the run was set to it, else as in training."""
    batch: PositiveInt = 128
    """Pictures per batch."""
    checkpoints: str = "checkpoints"
    """Folder in which runs and the newest checkpoint are looked for."""


@dataclass
class VerifySettings(UseSettings):
    """Settings of siamese-use verify."""

    a: str | None = None
    """A picture, or a folder of pictures."""
    b: str | None = None
    """The other picture, or a folder: every picture of one side is compared with every picture of
    the other."""
    pairs: str | None = None
    """Compare the pairs of this list instead: lines "a b", or a CSV or TSV with a header such as
    path_a,path_b; a column that says who is the same is passed over."""
    data: str | None = None
    """Folder that the paths in --pairs start from; null: the current one."""
    threshold: Score | None = None
    """The score from which on two pictures count as one person; null: the one that was chosen for
    the model."""
    prior: OpenUnit = 0.5
    """Probability that two pictures show one person before they are compared."""
    json: bool = False
    """Print JSON."""
    out: str | None = None
    """Write the pairs into this CSV."""


@dataclass
class GallerySettings(UseSettings):
    """Settings that all commands with a gallery share."""

    gallery: str = "runs/gallery.db"
    """The gallery: a file (SQLite), or postgresql://USER@HOST/DATABASE."""


@dataclass
class EnrollSettings(GallerySettings):
    """Settings of siamese-use enroll."""

    pictures: tuple[str, ...] = ()
    """The pictures of --name, or one folder with one folder per person."""
    name: str | None = None
    """Who is on the pictures; null: the folders' names."""


@dataclass
class SearchSettings(GallerySettings):
    """Settings of siamese-use identify."""

    pictures: tuple[str, ...] = ()
    """Pictures and folders of pictures to search for."""
    top: PositiveInt = 5
    """Most people that are named for a picture."""
    threshold: Score | None = None
    """The score below which nobody is known; null: the one that was chosen for identification, else
    that of two pictures."""
    prior: OpenUnit = 0.5
    """Probability that a picture shows the named person before it is compared."""
    search: Literal["exact", "hnsw"] = "exact"
    """exact; hnsw: approximate, by an index of PostgreSQL, whose measured recall is printed."""
    json: bool = False
    """Print JSON."""
    out: str | None = None
    """Write the answers into this CSV."""


@dataclass
class ListSettings(GallerySettings):
    """Settings of siamese-use people."""

    json: bool = False
    """Print JSON."""


@dataclass
class ForgetSettings(GallerySettings):
    """Settings of siamese-use forget."""

    names: tuple[str, ...] = ()
    """The people to remove, with everything that is stored about them."""


@dataclass
class ExportPersonSettings(GallerySettings):
    """Settings of siamese-use export-person."""

    name: str | None = None
    """The person."""
    out: str | None = None
    """The file to write (JSON); null: it is printed."""


@dataclass
class MigrateSettings(GallerySettings):
    """Settings of siamese-use migrate."""

    to: str | None = None
    """A new gallery that is written instead, a file or postgresql://...; null: the gallery itself
    changes."""


def check_use(settings: Any) -> None:
    """Refuse values that cannot work; takes the settings of any command of siamese-use.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    if isinstance(settings, VerifySettings):
        both = settings.a is not None and settings.b is not None
        if settings.pairs is None and not both:
            raise UserError("two pictures are needed: verify A B (or `pairs` FILE)")
        if settings.pairs is not None and (settings.a, settings.b) != (None, None):
            raise UserError("`pairs`: give it without pictures of your own")
        if settings.data is not None and settings.pairs is None:
            raise UserError("`data`: is where the paths in `pairs` start from; give it with them")


@dataclass
class ExportSettings:
    """Settings of siamese-use export."""

    checkpoint: str | None = None
    """The model: a checkpoint or a run's name; null: the newest checkpoints/*/best.pt."""
    to: Literal["onnx", "safetensors", "torch"] = "onnx"
    """onnx (pictures in, embeddings out, on any runtime); safetensors (the weights and a
    description); torch (an archive of torch.export)."""
    out: str | None = None
    """The file to write; null: beside the checkpoint."""
    quantize: Literal["int8"] | None = None
    """With --to onnx: int8 makes the network of 8-bit integers, and judges it before it is kept."""
    scoring: ScoringName = "auto"
    """With --to onnx and torch: what the model gives, embeddings (cosine) or what siamese-eval plda
    or wccn has fitted to make of them (plda, wccn); auto: as its threshold was chosen, without one
    cosine. A .safetensors holds both."""
    data: str | None = None
    """Pictures to check the exported model on, one folder per person: the new place of the
    checkpoint's own people, or others; null: the checkpoint's own where they were."""
    people: bool = False
    """Let the split travel along, so that siamese-eval finds the validation people. It holds names
    of people and of folders, which are personal data: true only where whoever gets the file may
    know them."""
    pictures: PositiveInt = 256
    """Most training pictures that --quantize finds the ranges on."""
    resamples: Resamples = 1000
    """Bootstrap resamples of the people for the interval of what --quantize costs; 0: none, and
    nothing is refused."""
    workers: NonNegativeInt | None = None
    """Loader processes; null: sized to the machine; 0: load in this process."""
    checkpoints: str = "checkpoints"
    """Folder in which runs and the newest checkpoint are looked for."""
    limits: LimitSettings = field(default_factory=LimitSettings)


EXPORT_SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "torch": ".pt2"}


def check_export(settings: ExportSettings) -> None:
    """Refuse values that cannot work.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    suffix = EXPORT_SUFFIXES[settings.to]
    if settings.out is not None and not settings.out.endswith(suffix):
        raise UserError(f"`out` {settings.out}: the file's name must end in {suffix}")
    if settings.scoring != "auto" and settings.to == "safetensors":
        raise UserError("`scoring`: a .safetensors holds all of them; choose where it is used")
    if settings.quantize is not None and settings.to != "onnx":
        raise UserError(f"`quantize` {settings.quantize}: is there with `to` onnx only")
