"""Every setting of a training run: nested dataclasses with their defaults and one line of help.

Imports no torch, so that ``--help`` and a mistyped setting answer at once. The attribute
docstrings are the help texts of the command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from siamese.config.common import LimitSettings, PrecisionName, SavedSettings, usable_pixels
from siamese.config.optimization import (
    USUAL_BETAS,
    OptimizerSettings,
    ScheduleSettings,
    check_optimization,
)
from siamese.config.ranges import (
    LARGEST_DIMENSION,
    LARGEST_SIDE,
    Allowed,
    AreaShares,
    AtLeastTwo,
    AtLeastTwoOrAuto,
    Compiling,
    FolderName,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnit,
    PlainName,
    PositiveInt,
    PositiveOrInfinite,
    Probability,
    Ratios,
    Seed,
    SwitchOrAuto,
    UnitAboveZero,
    UnitBelowOne,
    check_values,
    require,
    share_or_count,
)
from siamese.errors import UserError

LossName = Literal[
    "triplet",
    "contrastive",
    "multi_similarity",
    "supcon",
    "ntxent",
    "circle",
    "arcface",
    "subcenter_arcface",
    "cosface",
    "adaface",
    "normalized_softmax",
]
PoolingName = Literal["avg", "gem"]
NeckName = Literal["none", "batch_norm"]
MinerName = Literal["none", "all", "semihard", "hard", "batch_hard", "multi_similarity"]
ReducerName = Literal["default", "mean", "nonzero_mean", "sum"]
FitName = Literal["squash", "crop"]
FaceSide = Annotated[
    int, Allowed(f"from 16 to {LARGEST_SIDE} pixels", lambda v: 16 <= v <= LARGEST_SIDE)
]
Dimension = Annotated[
    int, Allowed(f"from 1 to {LARGEST_DIMENSION}", lambda v: 1 <= v <= LARGEST_DIMENSION)
]
Finite = Annotated[float, Allowed("finite", math.isfinite)]
PicturesEach = Annotated[int, Allowed("at least 2 (a genuine pair)", lambda v: v >= 2)]
Degrees = Annotated[float, Allowed("0 to 180 degrees", lambda v: 0 <= v <= 180)]
PeopleKept = Annotated[float, share_or_count("people")]
Magnitude = Annotated[int, Allowed("from 0 to 30", lambda v: 0 <= v <= 30)]


@dataclass
class ImageSettings:
    """Images: how a picture becomes the network's input (the same in training and evaluation)."""

    size: FaceSide = 224
    """Side of the square input in pixels."""
    fit: FitName = "squash"
    """How a picture is made square: squash (the whole picture, aspect changed) or crop (centre)."""
    crop: OpenUnit | None = None
    """Take the centre square of each picture first, its side as a share of the shorter side (0.6);
    the checkpoint remembers it. null: the whole picture."""
    mean: tuple[float, float, float] | None = None
    """RGB mean taken off, pixels in [0, 1]; null: the backbone's own (timm; zoo: 0.5)."""
    std: tuple[float, float, float] | None = None
    """RGB standard deviation divided by; null: the backbone's own (timm; zoo: 0.5)."""


@dataclass
class AugmentSettings:
    """Augmentation of training pictures; validation and test pictures never get any."""

    flip: Probability = 0.5
    """Probability of a horizontal flip; 0: off."""
    crop_scale: AreaShares | None = (0.8, 1.0)
    """Random resized crop: share of the area kept (arXiv 1409.4842); null: off."""
    crop_ratio: Ratios = (0.75, 1.3333333333333333)
    """Random resized crop: range of the aspect ratio."""
    rotation: Degrees = 0.0
    """Random rotation by up to this many degrees either way; 0: off."""
    color_jitter: Probability = 0.0
    """Strength of random brightness, contrast and saturation in [0, 1], hue a tenth (torchvision's
    ColorJitter, as in arXiv 2002.05709); 0: off."""
    grayscale: Probability = 0.0
    """Probability of turning a picture grey (arXiv 2002.05709); 0: off."""
    blur: Probability = 0.0
    """Probability of a Gaussian blur, sigma 0.1 to 2 px (arXiv 2002.05709); 0: off."""
    erasing: Probability = 0.0
    """Probability of erasing a random rectangle (arXiv 1708.04896); 0: off."""
    low_resolution: Probability = 0.0
    """Probability of shrinking a picture to a random share of its side, from a quarter to all of it
    (log-uniform), and enlarging it again, as small pictures are (Real-ESRGAN, arXiv 2107.10833,
    degrades so, then compresses); 0: off."""
    jpeg: Probability = 0.0
    """Probability of compression as JPEG, quality 20 to 90, as messengers do (arXiv 2107.10833);
    0: off."""
    randaugment: NonNegativeInt = 0
    """RandAugment operations per picture (torchvision's; arXiv 1909.13719); 0: off."""
    randaugment_magnitude: Magnitude = 9
    """Strength of RandAugment's operations, 0 to 30."""
    in_batches: SwitchOrAuto = "auto"
    """Crop, flip and erase whole batches on the network's device instead of single pictures in the
    loader processes; auto: on the GPU that a run begins on, where none of the parts above is on
    that has no such form. A CPU is faster picture by picture."""
    mixup: NonNegativeFloat = 0.0
    """Mixup: each picture of a batch is mixed with another one, by shares from Beta(alpha, alpha)
    (arXiv 1710.09412), and the loss alike; this is alpha. For losses with class weights, but not
    adaface; 0: off."""


@dataclass
class SplitSettings:
    """Split by identity: training, validation and test share no person."""

    validation: PeopleKept = 0.2
    """Share of the people (below 1) or number of people (1 or more) kept for validation."""
    test: PeopleKept = 0.0
    """Share or number of people kept for test; they select nothing."""
    train_people: AtLeastTwo | None = None
    """Train on so many of the others, drawn by the split's seed, fewer being a part of more: for
    learning curves. null: all of them."""
    seed: Seed | None = None
    """Seed of the split; null: the run's seed."""
    validation_data: str | None = None
    """A validation folder of your own (one folder per person, nobody of --data)."""
    test_data: str | None = None
    """A test folder of your own (one folder per person, nobody of --data)."""
    lists: str | None = None
    """A folder with train.csv, validation.csv and, if you like, test.csv, as siamese-data split
    writes it: they say who stands where in --data, and nothing is drawn."""

    @property
    def may_test(self) -> bool:
        """Whether there are test people; what lists hold is known where they are read."""
        return self.test > 0 or self.test_data is not None or self.lists is not None


@dataclass
class BatchSettings:
    """P x K batches: P people, K pictures of each."""

    people: AtLeastTwoOrAuto | None = None
    """P, people per batch; with fewer training people than that, all of them. null: as many as make
    a batch of 64 pictures. auto: as many as fit the GPU, found by trying when the run starts, and
    kept when it goes on."""
    images: PicturesEach | None = None
    """K, pictures per person in a batch; people with fewer get some of theirs twice. null: 4, fewer
    where most people have fewer."""
    images_per_epoch: PositiveInt | None = None
    """Training pictures drawn per epoch; null: as many as there are training pictures."""
    workers: NonNegativeInt | None = None
    """Loader processes; null: sized to the machine; 0: load in the training process."""
    chunk: AtLeastTwo | None = None
    """Pictures that go through the network at a time, for batches larger than memory: the gradient
    is that of the whole P x K batch, for a second forward pass (GradCache, arXiv 2101.06983). Batch
    norms normalise each chunk by itself. null: the whole batch at once."""

    @property
    def people_drawn(self) -> int:
        """P as a number, which a run finds for null and auto before it draws."""
        assert self.people is not None
        assert self.people != "auto"
        return self.people

    @property
    def images_drawn(self) -> int:
        """K as a number, which a run finds for null before it draws."""
        assert self.images is not None
        return self.images


@dataclass
class ModelSettings:
    """The embedder: one timm backbone and a linear head."""

    backbone: str = "tf_efficientnetv2_b0.in1k"
    """Any timm model name; or zoo/PRESET, a network of siamese-zoo list (with pretrained false)."""
    embedding_dim: Dimension = 512
    """Length D of the embedding."""
    pretrained: bool = True
    """Start from timm's pretrained weights (downloaded once); false: random weights."""
    weights: str | None = None
    """Start from this file instead: backbone weights (timm format), or a siamese checkpoint."""
    freeze_backbone: NonNegativeInt = 0
    """Epochs at the start in which only the head learns, frozen batch norms in eval mode (gradual
    unfreezing, arXiv 1801.06146, in one step)."""
    dropout: UnitBelowOne = 0.0
    """Dropout before the linear head, in [0, 1) (Srivastava et al., JMLR 2014)."""
    drop_path: UnitBelowOne = 0.0
    """Stochastic depth of the backbone, where it has it, in [0, 1) (arXiv 1603.09382)."""
    pooling: PoolingName = "avg"
    """How the backbone's last feature maps become one vector: avg (the backbone's own), or gem, a
    generalised mean with a learnt exponent that starts at 3 (arXiv 1711.02512)."""
    neck: NeckName = "none"
    """What follows the linear head: none, or batch_norm (BNNeck, arXiv 1903.07071)."""
    embedding_dropout: UnitBelowOne = 0.0
    """Dropout of the embeddings that the loss sees, in [0, 1) (ArcFace's E block has one, arXiv
    1801.07698)."""
    grad_checkpointing: bool = False
    """Keep few activations of the backbone and compute the others again: less memory, a second
    forward pass. Batch norms count each picture twice, until `trainer.recalibration_batches`
    measure them."""

    @property
    def is_random(self) -> bool:
        """Whether training starts from random weights: neither pretrained nor given."""
        return not self.pretrained and self.weights is None


@dataclass
class LossSettings:
    """The metric-learning loss (pytorch-metric-learning); unset values are its usual ones."""

    name: LossName = "triplet"
    """triplet: the safe default (arXiv 1503.03832). contrastive: simplest, for few people (Hadsell
    et al., CVPR 2006). multi_similarity: weighs every pair (1904.06627). supcon: strong with large
    batches (2004.11362). ntxent: like supcon, one positive at a time (1807.03748). circle:
    self-paced pairs (2002.10857). arcface: many people, clean labels (1801.07698).
    subcenter_arcface: the same with noisy labels (Deng et al., ECCV 2020). cosface: like arcface,
    easier to start (1801.09414). adaface: the margin follows each picture's quality, by the length
    of its embedding (2204.00964). normalized_softmax: plain class weights, the calmest start from
    random weights (1811.12649)."""
    margin: Finite | None = None
    """Margin: triplet 0.1, circle 0.25, arcface and subcenter_arcface 28.6 (degrees), cosface 0.35,
    adaface 0.4; contrastive: impostor similarity tolerated, 0; multi_similarity: lambda, 1."""
    scale: Finite | None = None
    """Scale: circle 256; multi_similarity 10 (its beta); arcface and its kin: sqrt(2) ln(people -
    1), at least 3.1 (AdaCos, arXiv 1905.00292; the usual 64 is for tens of thousands of people)."""
    temperature: Finite | None = None
    """Temperature: supcon 0.1, ntxent 0.07; normalized_softmax: 1 over the scale that arcface would
    have (0.05 is usual for many people)."""
    miner: MinerName = "none"
    """Which pairs or triplets of a batch count: none (the loss's own: all), all, semihard (arXiv
    1503.03832), hard, batch_hard (one hardest pair per image, 1703.07737), multi_similarity
    (1904.06627)."""
    miner_after: NonNegativeInt = 0
    """Epochs before the miner begins to choose."""
    triplet_weight: NonNegativeFloat = 0.0
    """Beside a loss with class weights (arcface and its kin): weight of a triplet loss of margin
    0.1 on the same batch; with `model.neck` batch_norm on the embeddings before it (arXiv
    1903.07071). 0: off."""
    memory: NonNegativeInt = 0
    """Embeddings of earlier batches that pairs and triplets are also made with (cross-batch memory,
    arXiv 1912.06798), at least one batch of them; 0: off."""
    reducer: ReducerName = "default"
    """How the terms become one number: default (the loss's own; triplet averages those above 0),
    mean (all of them), nonzero_mean, sum."""
    lr_factor: PositiveOrInfinite = 1.0
    """Learning rate of the class weights (arcface and its kin) relative to the network's."""
    sample_rate: UnitAboveZero = 1.0
    """Share of the people whose class weights (arcface and its kin) a batch is told from: its own
    and random others (Partial FC, arXiv 2203.15565). 0.1 is meant for 100,000 people and more;
    people who are not drawn get a gradient of 0."""


@dataclass
class TrainerSettings:
    """The training loop."""

    epochs: PositiveInt | None = None
    """Epochs in all; null: as many as see 60,000 pictures, from 10 to 100."""
    precision: PrecisionName = "auto"
    """auto: bf16 on GPUs that have it, fp16 with loss scaling on older ones; fp32 on CPUs, or bf16
    where a few steps say that a long run of one process, without `batches.chunk`, gets shorter by
    a tenth."""
    accumulate: PositiveInt = 1
    """P x K batches per optimizer step (their gradients are averaged). That is not one large batch:
    no pair or triplet spans two of them; `batches.chunk` makes a large one fit."""
    channels_last: SwitchOrAuto = "auto"
    """The memory layout that convolutions like; auto: yes, unless a few steps say that a long run
    of one process gets shorter without."""
    compile: Compiling = "auto"
    """Compile the network (torch.compile); auto: where a measurement on a few steps says that a
    long run gets shorter by it. reduce-overhead: with torch's mode of that name, CUDA graphs, for
    small batches on a GPU (a CPU takes it as true), not with `accumulate`. Not compiled at all with
    `batches.chunk`, nor in several processes."""
    select: Literal["auc", "ap", "eer"] = "auc"
    """Figure on the validation people that decides which epoch is best."""
    recalibration_batches: NonNegativeInt | None = None
    """Training batches that re-measure the batch-norm statistics before validation; null: as many
    as hold 1024 pictures, from 8 to 50; 0: off."""
    test_curve: bool = False
    """Judge the test people after every epoch, too: a curve to look at, it never selects."""
    embed_batch: PositiveInt = 128
    """Pictures per batch when validation pictures are embedded; a CPU takes fewer where they are
    large."""
    log_every: PositiveInt = 10
    """Steps between two points of TensorBoard's training curves."""
    profile: bool = False
    """Profile a few steps (torch.profiler): trace.json in the run's folder, and a line that says
    what a step spends its time on."""

    @property
    def epochs_run(self) -> int:
        """The epochs as a number, which a run finds for null before it begins."""
        assert self.epochs is not None
        return self.epochs


@dataclass
class TrainSettings(SavedSettings):
    """All settings of siamese-train."""

    data: FolderName | None = None
    """Your faces: a folder with one folder per person. Without it: the demo faces."""
    clean: str | None = None
    """suspects.csv of siamese-data audit, or its plans/suspects.csv: what it names is left out of
    training. Validation and test people stay whole: figures without what a model finds hard would
    flatter."""
    name: PlainName | None = None
    """Name of the run; null: made from the data, the backbone and the time."""
    resume: str | None = None
    """Continue a run: its name, its folder in checkpoints/, or a checkpoint file."""
    seed: Seed = 0
    """Seed of the weights, the batches, the augmentation and (unless set) the split."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    runs: str = "runs"
    """Folder for TensorBoard logs, settings, metrics and the data report."""
    checkpoints: str = "checkpoints"
    """Folder for best.pt and last.pt of each run."""
    cache: FolderName | None = None
    """Folder for decoded pictures, which later epochs and runs read; null: decode each time, or
    once with at most one loader process, as on CPUs, as far as 512 MiB go."""
    images: ImageSettings = field(default_factory=ImageSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    batches: BatchSettings = field(default_factory=BatchSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)

    @property
    def split_seed(self) -> int:
        """The seed that the split is drawn with."""
        return self.seed if self.split.seed is None else self.split.seed


# What changes no result: a run may go on with other values, and its name does not depend on them.
FACE_IMMATERIAL = frozenset(
    {
        "resume",
        "device",
        "runs",
        "checkpoints",
        "cache",
        "batches.workers",
        "trainer.log_every",
        "trainer.embed_batch",
        "trainer.compile",
        "trainer.profile",
        "limits.weights",
        "limits.description",
    }
)

# What each loss listens to; anything else set is refused rather than ignored.
LOSS_OPTIONS: dict[str, frozenset[str]] = {
    "triplet": frozenset({"margin"}),
    "contrastive": frozenset({"margin"}),
    "multi_similarity": frozenset({"margin", "scale"}),
    "supcon": frozenset({"temperature"}),
    "ntxent": frozenset({"temperature"}),
    "circle": frozenset({"margin", "scale"}),
    "arcface": frozenset({"margin", "scale"}),
    "subcenter_arcface": frozenset({"margin", "scale"}),
    "cosface": frozenset({"margin", "scale"}),
    "adaface": frozenset({"margin", "scale"}),
    "normalized_softmax": frozenset({"temperature"}),
}


# Margin and scale of multi_similarity: lambda as in the paper (Wang 2019), and a beta of 10. Its 50
# learns little from random weights (scripts/RESULTS.md).
MULTI_SIMILARITY = (1.0, 10.0)

# Augmentation that is made picture by picture; crop, flip and erasing have a form for batches.
_OF_SINGLE_PICTURES = (
    "rotation",
    "color_jitter",
    "grayscale",
    "blur",
    "low_resolution",
    "jpeg",
    "randaugment",
)

# Losses with one learnt vector per training identity.
CLASS_WEIGHT_LOSSES = frozenset(
    {"arcface", "subcenter_arcface", "cosface", "adaface", "normalized_softmax"}
)


def default_lr(optimizer: str, from_random_weights: bool) -> float:
    """Learning rate where none is set, by where the weights come from.

    Measured (scripts/RESULTS.md) are those of radam_schedulefree and adamw: from pretrained
    weights with EfficientNet-Lite0, from random ones with small networks. The others are customary.
    """
    if optimizer == "sgd_schedulefree":
        return 1.0 if from_random_weights else 0.1
    if optimizer in ("sgd", "lars"):
        return 0.01 if from_random_weights else 1e-3
    if not from_random_weights:
        return {"radam_schedulefree": 5e-3, "adamw": 2e-3}.get(optimizer, 1e-4)
    measured = {"radam_schedulefree": 1e-2, "adamw": 3e-3}
    return {**measured, "adamw_schedulefree": 2.5e-3}.get(optimizer, 1e-3)


def default_betas(optimizer: str) -> tuple[float, float]:
    """Moment decay rates of a face run where none are set.

    RAdam's rate rises over about 2 / (1 - beta2) steps: at 0.999 longer than many runs are, and
    0.99 was better by as much (scripts/RESULTS.md).
    """
    return (0.9, 0.99) if optimizer == "radam_schedulefree" else USUAL_BETAS


def parts_of_single_pictures(settings: AugmentSettings) -> list[str]:
    """The parts that are on and cannot be made of a whole batch at once."""
    return [name for name in _OF_SINGLE_PICTURES if getattr(settings, name) > 0]


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that cannot work or contradict each other.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    images, split = settings.images, settings.split
    both = (images.mean is None) == (images.std is None)
    require(both, "images.mean", images.mean, "given together with `images.std`")
    if images.mean is not None and images.std is not None:
        usable = usable_pixels(images.mean, images.std, 3)
        require(usable, "images.std", images.std, "finite as the mean is, and not near 0")
    usable = split.test_data is None or split.test == 0
    require(usable, "split.test", split.test, "0 beside `split.test_data`: choose one of them")
    _check_lists(settings)
    _check_loss(settings.loss)
    _check_mixup(settings.augment.mixup, settings.loss)
    check_optimization(settings.optimizer, settings.schedule)
    alone = [f"`augment.{name}`" for name in parts_of_single_pictures(settings.augment)]
    usable = settings.augment.in_batches is not True or not alone
    require(usable, "augment.in_batches", "true", f"false or auto beside {', '.join(alone)}")
    compiling = settings.trainer.compile
    usable = compiling in (False, "auto") or settings.batches.chunk is None
    require(usable, "trainer.compile", compiling, "false or auto beside `batches.chunk`")
    usable = compiling != "reduce-overhead" or settings.trainer.accumulate == 1
    require(usable, "trainer.compile", compiling, "true, false or auto beside `trainer.accumulate`")
    usable = settings.batches.people != "auto" or settings.batches.chunk is None
    wanted = "a number beside `batches.chunk`, with which any batch fits"
    require(usable, "batches.people", "auto", wanted)
    usable = settings.batches.people != "auto" or settings.loss.memory == 0
    require(usable, "batches.people", "auto", "a number beside `loss.memory`")
    if settings.trainer.test_curve and not split.may_test:
        raise UserError("`trainer.test_curve` true: there are no test people; set `split.test`")


def _check_lists(settings: TrainSettings) -> None:
    split = settings.split
    if split.lists is None:
        return
    if settings.data is None:
        raise UserError("`split.lists`: give the folder that its paths start from with `data`")
    unset = {
        "test": 0, "seed": None, "validation_data": None, "test_data": None, "train_people": None,
    }  # fmt: skip
    for name, value in unset.items():
        given = getattr(split, name)
        if given != value:
            raise UserError(
                f"`split.{name}` {given}: does nothing beside `split.lists`, which says who stands "
                f"where; leave one of them out ({'null' if value is None else value} unsets it)"
            )


def _check_mixup(mixup: float, loss: LossSettings) -> None:
    """Mixed pictures show two people: pairs and triplets, and a picture's quality, mean nothing."""
    usable = loss.name in CLASS_WEIGHT_LOSSES and loss.name != "adaface"
    wanted = f"0 for the {loss.name} loss (arcface, cosface and normalized_softmax can mix people)"
    require(mixup == 0 or usable, "augment.mixup", mixup, wanted)
    usable = mixup == 0 or loss.triplet_weight == 0
    require(usable, "augment.mixup", mixup, "0 beside `loss.triplet_weight`")


def _check_loss(loss: LossSettings) -> None:
    allowed = LOSS_OPTIONS[loss.name]
    for option in ("margin", "scale", "temperature"):
        value = getattr(loss, option)
        if value is None:
            continue
        if option not in allowed:
            listens = f"it listens to {', '.join(sorted(allowed))}" if allowed else "nor others"
            raise UserError(f"`loss.{option}` does nothing for the {loss.name} loss ({listens})")
        positive = option != "margin" or loss.name != "contrastive"
        wanted = "above 0" if positive else "finite"
        require(value > 0 or not positive, f"loss.{option}", value, wanted)
    triplet, miner = loss.name == "triplet", loss.miner
    usable = triplet or miner not in ("all", "semihard", "hard")
    require(usable, "loss.miner", miner, "none unless the loss is triplet")
    has_weights, whose = loss.name in CLASS_WEIGHT_LOSSES, f"for the {loss.name} loss"
    usable = loss.sample_rate == 1 or (has_weights and loss.name != "adaface")
    require(usable, "loss.sample_rate", loss.sample_rate, f"1 {whose}")
    usable = miner == "none" or not has_weights
    require(usable, "loss.miner", miner, f"none {whose}")
    usable = loss.miner_after == 0 or miner != "none"
    require(usable, "loss.miner_after", loss.miner_after, "0 where `loss.miner` is none")
    usable = loss.triplet_weight == 0 or has_weights
    require(usable, "loss.triplet_weight", loss.triplet_weight, f"0 {whose}")
    usable = loss.memory == 0 or not has_weights
    require(usable, "loss.memory", loss.memory, f"0 {whose}")


# The demo faces that training draws; the settings below were chosen for them.
DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED = 280, 20, 96, 0


def demo_settings() -> dict[str, Any]:
    """Settings for the demo faces: a small network from random weights, a good minute on a CPU."""
    return {
        "images": {"size": 64},
        "split": {"validation": 40, "test": 40},
        "batches": {"people": 16, "images": 4},
        "model": {"backbone": "test_resnet", "embedding_dim": 128, "pretrained": False},
        "optimizer": {"betas": [0.9, 0.999]},
        "trainer": {"epochs": 7, "recalibration_batches": 20},
    }
