"""Every setting of siamese-data: a dataclass per command, with one line of help each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from siamese.config.common import ScoringName
from siamese.config.evaluation import JudgeSettings
from siamese.config.ranges import (
    Allowed,
    NonNegativeInt,
    OpenUnit,
    PictureSide,
    PositiveInt,
    Seed,
    UnitAboveZero,
    check_values,
    share_or_count,
)
from siamese.errors import UserError

AspectRatio = Annotated[float, Allowed("at least 1", lambda v: v >= 1)]
HashBits = Annotated[int, Allowed("between 0 and 16", lambda v: 0 <= v <= 16)]
Quality = Annotated[int, Allowed("between 1 and 100", lambda v: 1 <= v <= 100)]
ValidationPeople = Annotated[float, share_or_count("people", least=2)]
TestPeople = Annotated[float, share_or_count("people")]
FetchName = Literal["lfw", "olivetti", "yunet"]
PictureFormat = Literal["jpeg", "webp", "png"]
CropFormat = Literal["jpeg", "png"]
CropFaces = Literal["largest", "all"]
Margin = Annotated[float, Allowed("from 0 to 3", lambda v: 0 <= v <= 3)]
DetectionSide = Annotated[
    int,
    Allowed("a multiple of 32 from 64 to 4096", lambda v: 64 <= v <= 4096 and v % 32 == 0),
]
ConvertFit = Literal["shorter", "squash", "crop"]


@dataclass
class CheckSettings:
    """Settings of siamese-data check."""

    data: str | None = None
    """The folder to check, one folder per person; may stand first, without its name."""
    out: str | None = None
    """Folder for check.json, check.html and the plans; null: runs/check-FOLDER."""
    min_side: PositiveInt = 48
    """Pictures whose shorter side has fewer pixels are told as too small."""
    max_aspect: AspectRatio = 2.5
    """Pictures whose longer side is more than this many times the shorter are told as odd."""
    near: HashBits = 6
    """Near-duplicates: perceptual hashes that differ in at most this many of 64 bits (and finer
    ones in at most 64 of 256)."""
    workers: NonNegativeInt | None = None
    """Processes that read pictures; null: one per processor; 0: this one."""
    runs: str = "runs"
    """Folder in which results are written."""


@dataclass
class AuditSettings(JudgeSettings):
    """Settings of siamese-data audit."""

    data: str | None = None
    """The folder to audit, one folder per person; may stand first, without its name."""
    out: str | None = None
    """Folder for the CSV files and audit.html; null: runs/audit-FOLDER."""
    scoring: ScoringName = "cosine"
    """What is audited: a checkpoint's embeddings as they are (cosine), or mapped as siamese-eval
    plda or wccn has fitted it (plda, wccn); auto: as its threshold was chosen."""
    suspicion: OpenUnit = 0.5
    """Pictures are suspects from this probability on of being somebody else's."""
    against: str | None = None
    """A second folder (or .npz, beside --embeddings): people and pictures that are in both."""
    quarantine: str | None = None
    """Move the suspects into this folder, with a manifest that siamese-data restore undoes."""
    shown: PositiveInt = 60
    """Suspects and pairs of people whose pictures the page shows."""


@dataclass
class MendSettings:
    """Settings of siamese-data mend."""

    data: str | None = None
    """The folder to mend; may stand first, without its name."""
    plan: str | None = None
    """A plan that check or audit wrote (CSV with the columns path,to; an empty to: quarantine)."""
    quarantine: str | None = None
    """Folder for what is taken out, and for the manifest; null: FOLDER-quarantine beside it."""


@dataclass
class RestoreSettings:
    """Settings of siamese-data restore."""

    manifest: str | None = None
    """The manifest that mend or audit --quarantine wrote; may stand first, without its name."""
    root: str | None = None
    """Folder that the files go back to; null: as the manifest says, where it lies beside theirs."""
    quarantine: str | None = None
    """Folder that the files are in; null: the one that the manifest lies in."""


@dataclass
class SplitListSettings(JudgeSettings):
    """Settings of siamese-data split."""

    data: str | None = None
    """The folder to split, one folder per person; may stand first, without its name."""
    out: str | None = None
    """Folder for train.csv, validation.csv and test.csv, for --split.lists of siamese-train; null:
    runs/split-FOLDER."""
    scoring: ScoringName = "cosine"
    """What --checkpoint compares: embeddings as they are (cosine), or mapped as siamese-eval plda
    or wccn has fitted it (plda, wccn); auto: as its threshold was chosen."""
    validation: ValidationPeople = 0.2
    """Share of the people (below 1) or number of people (1 or more) for validation."""
    test: TestPeople = 0.1
    """Share or number of people for test; 0: none."""
    seed: Seed = 0
    """Seed of the draw."""
    merge: str | None = None
    """CSV of folders that are one person (columns first,second), such as audit's same_person.csv;
    null: found with --checkpoint or --embeddings where one is given, else nothing is merged."""


@dataclass
class ConvertSettings:
    """Settings of siamese-data convert."""

    data: str | None = None
    """The folder to convert; may stand first, without its name."""
    out: str | None = None
    """The folder to write; a second call goes on with it, files of other origin are kept."""
    size: PictureSide = 256
    """Side in pixels."""
    fit: ConvertFit = "shorter"
    """shorter: the shorter side gets the size, the aspect stays, small pictures stay small; squash:
    the whole picture becomes a square; crop: the centre square, both as training makes them."""
    format: PictureFormat = "jpeg"
    """File type of the results."""
    quality: Quality = 95
    """Quality of JPEG and WebP, 1 to 100."""
    workers: NonNegativeInt | None = None
    """Processes; null: one per processor; 0: this one."""


@dataclass
class CropSettings:
    """Settings of siamese-data crop."""

    data: str | None = None
    """The photographs: one folder per person, or one folder of them all; may stand first."""
    out: str | None = None
    """The folder to write; a second call goes on with it, nothing that is there is written over."""
    detector: str | None = None
    """YuNet's ONNX file (siamese-data fetch yunet --out yunet.onnx downloads it)."""
    size: PictureSide | None = None
    """Side of a face's picture in pixels; null: that of --checkpoint, without one 112."""
    checkpoint: str | None = None
    """A model whose input's side is taken for the size."""
    margin: Margin = 0.0
    """Room around the usual crop as a share of its side: 0.25 shows 25 % more, 0 is ArcFace's."""
    faces: CropFaces | None = None
    """Faces of a photograph that are written, largest (the one) or all; null: the largest in a
    person's folder, all where photographs lie in nobody's."""
    score: UnitAboveZero = 0.9
    """Least score of a face, above 0 to 1; lower ones find more, and more that is none."""
    min_side: NonNegativeInt = 48
    """Faces whose box's shorter side has fewer pixels are listed, not written."""
    detect_at: DetectionSide = 640
    """Pixels of the longer side at which a photograph is looked at (and at half of that where
    nothing is found); larger ones find smaller faces and take longer."""
    format: CropFormat = "jpeg"
    """File type of the faces."""
    quality: Quality = 95
    """Quality of JPEG, 1 to 100."""
    workers: NonNegativeInt | None = None
    """Processes; null: one per processor; 0: this one."""


@dataclass
class FetchSettings:
    """Settings of siamese-data fetch."""

    name: FetchName | None = None
    """lfw (Labeled Faces in the Wild, with its pairs files), olivetti, or yunet (the network that
    siamese-data crop finds faces with, 0.2 MB); may stand first."""
    out: str | None = None
    """The folder to write: one folder per person; of yunet the file."""
    downloads: str | None = None
    """Where the library keeps its downloads; null: its own place."""


@dataclass
class DemoSettings:
    """Settings of siamese-data demo."""

    out: str | None = None
    """The folder to write; it must be missing or empty."""
    people: int = 60
    """Number of people."""
    images: int = 20
    """Pictures of each."""
    size: PictureSide = 96
    """Side of a picture in pixels."""
    seed: Seed = 0
    """Seed; the same seed draws the same faces."""


def check_curation(settings: Any) -> None:
    """Refuse values that cannot work; takes the settings of any command of siamese-data.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    if isinstance(settings, SplitListSettings):
        by_model = settings.checkpoint is not None or settings.embeddings is not None
        if settings.merge is not None and by_model:
            raise UserError("`merge`: give it without `checkpoint` and `embeddings`")
    if isinstance(settings, CropSettings) and None not in (settings.size, settings.checkpoint):
        raise UserError("`size`: give it without `checkpoint`, which has one")
