"""Every setting of siamese-eval: a dataclass per kind of command, with one line of help each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from siamese.config.common import FITTED, LimitSettings, PrecisionName, ScoringName
from siamese.config.ranges import (
    Allowed,
    AtLeastTwo,
    FolderName,
    NonNegativeInt,
    OpenUnit,
    PositiveInt,
    Seed,
    SwitchOrAuto,
    check_values,
)
from siamese.errors import UserError

CropSide = Annotated[
    float | Literal["whole"],
    Allowed(
        "a share of the shorter side below 1, whole pixels, or whole",
        lambda v: v == "whole" or 0 < v < 1 or (v >= 1 and float(v).is_integer()),
    ),
]
Resamples = Annotated[
    int, Allowed("0, or from 100 to 10000", lambda v: v == 0 or 100 <= v <= 10_000)
]
Gibibytes = Annotated[float, Allowed("a number of GiB above 0", lambda v: 0 < v < math.inf)]
Score = Annotated[float, Allowed("a number", math.isfinite)]


@dataclass
class EmbedSettings:
    """Settings of siamese-eval embed, and of everything that embeds pictures."""

    checkpoint: str | None = None
    """A checkpoint file, or an exported model (.onnx, .safetensors); null: the newest
    checkpoints/*/best.pt."""
    data: str | None = None
    """A folder with one folder per person; null: people of the checkpoint's own split."""
    part: Literal["validation", "test", "train"] | None = None
    """Which of the checkpoint's own people are taken; null: validation, with --data everybody."""
    out: str | None = None
    """The file to write: .npz; or, for pictures without number, .npy with a .csv of labels and
    paths beside it, written as they are made; a stopped run goes on. null: embeddings.npz in the
    run's evaluation folder."""
    crop: CropSide | None = None
    """Take the centre square of each picture first: its side in pixels (150), or as a share of the
    shorter side (0.6). whole: the whole picture; null: as the model was trained (`images.crop`)."""
    flip: SwitchOrAuto = "auto"
    """Average each embedding with that of the mirrored picture, for twice the time; auto: as the
    checkpoint's threshold was chosen, without one true."""
    scoring: ScoringName = "auto"
    """What is compared by its cosine: embeddings as they are (cosine), or mapped as siamese-eval
    plda has fitted it (plda; Ioffe, ECCV 2006), or beside what siamese-eval wccn has fitted (wccn,
    the mean of two cosines; Hatch et al., Interspeech 2006); auto: as the checkpoint's threshold
    was chosen, without one cosine."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    precision: PrecisionName = "auto"
    """Arithmetic of the network; auto: fp32 where the run was set to it, else as in training."""
    batch: PositiveInt = 128
    """Pictures per batch; a CPU takes fewer where they are large."""
    workers: NonNegativeInt | None = None
    """Loader processes; null: sized to the machine; 0: load in this process. A CPU embeds many
    pictures in them, of which there are then as many as it has cores."""
    checkpoints: str = "checkpoints"
    """Folder in which the newest checkpoint is looked for."""
    cache: FolderName | None = None
    """Folder for decoded pictures, which later runs read; null: decode each time."""
    runs: str = "runs"
    """Folder in which results are written."""
    limits: LimitSettings = field(default_factory=LimitSettings)


@dataclass
class ResampledSettings(EmbedSettings):
    """Settings of everything that gives intervals."""

    resamples: Resamples = 1000
    """Bootstrap resamples of the people for 95 % intervals; 0: no intervals."""
    seed: Seed = 0
    """Seed of the resamples."""


@dataclass
class FoldedSettings(ResampledSettings):
    """Settings of what can be judged by cross-validation."""

    folds: AtLeastTwo | None = None
    """Judge everybody, for few people: train the checkpoint's recipe this often, each time without
    another part of the people, and pool the figures on those. A stopped command goes on."""
    fold_checkpoints: str | None = None
    """With --folds: train nothing, there is a checkpoint per fold already; a pattern that matches
    them, in quotes, e.g. 'checkpoints/mine-fold*/best.pt'."""


@dataclass
class EmbeddingFileSettings:
    """Settings of everything that reads embeddings from files."""

    labels: str | None = None
    """Who is on each picture of an .npy (or of an .npz without labels): an .npy, a text with one
    label per line, or a CSV with a column label (and, if you like, path)."""
    embeddings_limit: Gibibytes = 1.0
    """GiB that the arrays of a file of embeddings may take; larger ones are refused unread."""


@dataclass
class JudgeSettings(EmbedSettings, EmbeddingFileSettings):
    """Settings that all judgements of one model share."""

    embeddings: str | None = None
    """Judge this .npz (embeddings, labels; names and paths optional) or .npy, of any system."""
    out: str | None = None
    """Folder for the pictures and the JSON; null: the run's evaluation folder."""


@dataclass
class CurveSettings(FoldedSettings, JudgeSettings):
    """Settings of siamese-eval roc, pr, det and pairs."""

    target: str | None = None
    """Judge one registered person against everybody instead of all pairs."""
    pairs: str | None = None
    """Judge the pairs of this list, pictures relative to --data (or by the paths in --embeddings):
    LFW's format (pairs.txt, pairsDevTest.txt), lines "a b 1", or a CSV or TSV with a header such as
    path_a,path_b,same or img1,img2,label."""


@dataclass
class ThresholdSettings(FoldedSettings):
    """Settings of siamese-eval threshold."""

    target_fmr: OpenUnit = 1e-3
    """False-match rate that the threshold must keep on the validation people."""
    target_fpir: OpenUnit | None = None
    """Choose a second threshold, for searches in a gallery: this share of searches for strangers
    may name somebody (false-positive identification rate); null: none is chosen."""
    gallery: PositiveInt = 1
    """With --target-fpir: enrolled pictures per person."""
    data: str | None = None
    """A folder of other people to check the threshold on (--crop is for these); null: the
    checkpoint's test people."""
    part: Literal["test"] | None = None
    """With --data: that folder is the new place of the checkpoint's own people; it is checked on
    the test people among them."""
    prior: OpenUnit = 0.5
    """Probability that two pictures show one person before they are compared."""
    write: bool = True
    """Write threshold and calibration into the checkpoint; false: only show them."""
    out: str | None = None
    """Folder for the JSON and the reliability plot; null: the run's folder."""


@dataclass
class ScoringFitSettings(ResampledSettings):
    """Settings of siamese-eval plda and siamese-eval wccn."""

    data: str | None = None
    """A folder of other people to fit on (--crop is for these), none of them among the checkpoint's
    validation and test people; null: the people that it was trained on."""
    part: Literal["train"] | None = None
    """With --data: that folder is the new place of the checkpoint's own people; it is fitted on the
    training people among them."""
    write: bool = True
    """Write the map into the checkpoint; false: only show what it does."""
    out: str | None = None
    """Folder for the JSON; null: the run's folder."""


@dataclass
class CompareSettings(ResampledSettings, EmbeddingFileSettings):
    """Settings of siamese-eval compare."""

    a: str | None = None
    """The first model: a file of embeddings (.npz, .npy) or a checkpoint."""
    b: str | None = None
    """The second model: a file of embeddings (.npz, .npy) or a checkpoint."""
    out: str | None = None
    """Folder for the JSON; null: runs/compare-A-B."""


@dataclass
class IdentifySettings(JudgeSettings):
    """Settings of siamese-eval identify."""

    gallery: PositiveInt = 1
    """Largest number of enrolled pictures per person; every number from 1 to it is judged."""
    fusion: Literal["max", "mean"] = "max"
    """Score of a probe with a person: the best of, or the mean over, the enrolled pictures."""
    draws: PositiveInt = 10
    """Random galleries that the figures are averaged over."""
    seed: Seed = 0
    """Seed of the random galleries."""


@dataclass
class PeopleSettings(JudgeSettings):
    """Settings of siamese-eval people."""

    threshold: Score | None = None
    """Threshold of the error rates; null: the checkpoint's own, else that of FMR 1e-2."""


@dataclass
class ReportSettings(ResampledSettings, PeopleSettings):
    """Settings of siamese-eval report."""

    against: str | None = None
    """A second checkpoint (or an .npz, .npy) to show side by side on the same pictures."""
    prior: OpenUnit = 0.5
    """Probability that two pictures show one person before they are compared."""
    shown: PositiveInt = 24
    """Pairs in each gallery of worst pairs."""


def check_evaluation(settings: Any) -> None:
    """Refuse values that cannot work; takes the settings of any command of siamese-eval.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    _check_together(settings)


def _check_together(settings: Any) -> None:
    """Refuse settings that contradict each other."""

    def given(name: str) -> bool:
        return getattr(settings, name, None) is not None

    scoring = getattr(settings, "scoring", "auto")
    wrong = (
        (given("pairs") and given("target"),
         "`target`: give it without `pairs`, which names its own pictures"),
        (given("pairs") and not (given("data") or given("embeddings")),
         "`pairs`: give the folder of the pictures with `data`, or `embeddings` that have paths"),
        (given("pairs") and given("part"),
         "`part`: give it without `pairs`, which names its own pictures"),
        (given("fold_checkpoints") and not given("folds"),
         "`fold_checkpoints`: say with `folds` how many they are"),
        (given("folds") and any(map(given, ("target", "pairs", "embeddings", "part"))),
         "`folds`: judges all people of a checkpoint; give it without `target`, `pairs`, "
         "`embeddings` and `part`"),
        (given("embeddings") and given("data"),
         "`embeddings`: give it without `data`; the pictures are not looked at"),
        (given("labels") and hasattr(settings, "embeddings")
         and not (given("embeddings") or given("against")),
         "`labels`: says who is on the rows of `embeddings`; give it with them"),
        (given("embeddings") and scoring in FITTED,
         f"`scoring` {scoring}: maps what a checkpoint gives; give it without `embeddings`"),
        (isinstance(settings, ScoringFitSettings) and settings.scoring != "auto",
         "`scoring`: is what this command fits; leave it out"),
        (given("embeddings") and (given("checkpoint") or given("part")),
         "`embeddings`: give it without `checkpoint` and `part`; it holds all that is judged"),
        (isinstance(settings, CompareSettings) and not (given("a") and given("b")),
         "two models are needed, `a` and `b` (a file of embeddings or a checkpoint each)"),
        (isinstance(settings, CompareSettings) and given("checkpoint"),
         "`checkpoint`: name both models instead, `a` and `b`"),
        (type(settings) is EmbedSettings
         and not (settings.out or ".npz").endswith((".npz", ".npy")),
         f"`out` {settings.out}: the file's name must end in .npz or .npy"),
    )  # fmt: skip
    for is_wrong, message in wrong:
        if is_wrong:
            raise UserError(message)
