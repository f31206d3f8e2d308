"""Every setting of siamese-use: a dataclass per kind of command, with one line of help each."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from siamese.config.common import LimitSettings, PrecisionName, ScoringName
from siamese.config.curation import Margin
from siamese.config.evaluation import Resamples, Score
from siamese.config.ranges import (
    Allowed,
    MemoryLimit,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnit,
    PositiveFloat,
    PositiveInt,
    SwitchOrAuto,
    check_values,
)
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


Port = Annotated[int, Allowed("from 0 to 65535", lambda v: 0 <= v <= 65535)]
TOKEN_VARIABLE = "SIAMESE_TOKEN"
_SHORTEST_TOKEN = 16


@dataclass
class ServeLimitSettings:
    """Limits: what those who ask the service may take of it."""

    picture: MemoryLimit = 10.0
    """Largest file of a picture, in MiB."""
    pixels: MemoryLimit = 25.0
    """Most pixels of a picture, in millions."""
    pictures: PositiveInt = 16
    """Most pictures of one enrolment."""
    request: MemoryLimit = 40.0
    """Largest request, in MiB."""
    memory: MemoryLimit = 400.0
    """Memory for all requests that are being received, in MiB; beyond it new ones are put off."""
    rate: PositiveInt = 600
    """Requests a minute from one address; a fifth of them may come at once."""
    connections: PositiveInt = 128
    """Connections at a time; beyond them new ones are put off."""
    seconds: PositiveFloat = 20.0
    """Within which a request must have arrived."""


@dataclass
class ServeSettings(GallerySettings):
    """Settings of siamese-use serve."""

    batch: PositiveInt = 32
    """Most pictures in one pass of the network."""
    wait: NonNegativeFloat = 5.0
    """Milliseconds that a pass waits at most for pictures that are being decoded; it never waits
    where there are none."""
    detector: str | None = None
    """YuNet's ONNX file: the largest face of each picture that is sent is cut out and aligned
    first, as siamese-data crop does, for a model that was trained on such faces."""
    margin: Margin = 0.0
    """With --detector: the --margin that siamese-data crop had."""
    host: str = "127.0.0.1"
    """The address to bind. Any but this machine's own (127.0.0.1, ::1) demands a token."""
    port: Port = 8000
    """The port to bind; 0: a free one."""
    token: str | None = None
    """What every request must bring (Authorization: Bearer TOKEN). Others on the machine can see a
    command line, so better set it in the environment as SIAMESE_TOKEN, which this one wins over."""
    hosts: tuple[str, ...] = ()
    """Further names that the service is asked by, such as that of a proxy before it. Without a
    token a request for any name but this machine's own is refused."""
    limits: ServeLimitSettings = field(default_factory=ServeLimitSettings)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, which no other machine can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_serve(settings: ServeSettings) -> None:
    """Refuse values that cannot work, and to be open to others without a token.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    if settings.margin and settings.detector is None:
        raise UserError("`margin`: is there with `detector` only, which cuts the faces out")
    token = settings.token
    if token is None and not is_loopback(settings.host):
        raise UserError(
            f"`host` {settings.host}: others can reach it, so a token is needed: set "
            f"{TOKEN_VARIABLE} in the environment, or `token`"
        )
    if token is not None and not (
        len(token) >= _SHORTEST_TOKEN and token.isascii() and token.isprintable()
        and " " not in token
    ):  # fmt: skip
        raise UserError(
            f"`token`: must be {_SHORTEST_TOKEN} or more letters, digits and signs of ASCII "
            "without spaces; python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    if settings.limits.picture > settings.limits.request:
        raise UserError("`limits.picture`: a picture cannot be larger than `limits.request`")
    if settings.limits.request > settings.limits.memory:
        raise UserError("`limits.request`: a request cannot be larger than `limits.memory`")


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
    flip: SwitchOrAuto = "auto"
    """With --to onnx and torch: average each embedding with that of the mirrored picture inside the
    graph, for twice the time; auto: as its threshold was chosen, without one yes. A threshold that
    was chosen otherwise stays behind."""
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
    if settings.flip != "auto" and settings.to == "safetensors":
        raise UserError("`flip`: a .safetensors holds weights alone; choose where it is used")
    if settings.quantize is not None and settings.to != "onnx":
        raise UserError(f"`quantize` {settings.quantize}: is there with `to` onnx only")
