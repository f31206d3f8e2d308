"""Settings of the classification commands (``siamese-zoo``); imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from siamese.config.common import LimitSettings, PrecisionName, SavedSettings
from siamese.config.optimization import OptimizerSettings, ScheduleSettings, check_optimization
from siamese.config.ranges import (
    AreaShares,
    AtLeastTwo,
    Compiling,
    InputSide,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnit,
    PlainName,
    PositiveInt,
    Probability,
    Seed,
    SwitchOrAuto,
    UnitAboveZero,
    UnitBelowOne,
    check_values,
    require,
    share_or_count,
)
from siamese.errors import UserError

ClassPrecisionName = Literal["auto", "fp32", "bf16", "fp16", "pure_bf16", "pure_fp16"]
ImagesKept = Annotated[float, share_or_count("training images")]
DatasetName = Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "kmnist", "folder"]


@dataclass
class DatasetSettings:
    """The pictures and their classes."""

    name: DatasetName = "cifar10"
    """A set of torchvision, or folder: --data.root with train/ and test/ (or val/), each with one
    folder per class."""
    root: str = "runs/data"
    """Where the set lies, in torchvision's layout, or is downloaded to."""
    download: bool = True
    """Download the set where it is missing."""
    validation: ImagesKept = 0.1
    """Share (below 1) or number of training images, drawn class by class, that select the best
    epoch; 0: train on all of them, nothing selects, the last epoch counts (as papers do)."""
    size: InputSide | None = None
    """Side of the network's square input in pixels, for training; null: the set's own (folder:
    224)."""
    test_size: InputSide | None = None
    """Side of the input in validation and test; null: the same."""
    test_crop: UnitAboveZero = 1.0
    """folder: share of the side kept by the central crop in validation and test."""
    resident: bool | None = None
    """Hold all images on the training device as uint8 (null: yes, but for folder)."""
    subset: PositiveInt | None = None
    """Use this many of the training images only (validation included), drawn class by class; null:
    all."""
    test_subset: PositiveInt | None = None
    """Test on this many images only; null: all."""
    workers: NonNegativeInt | None = None
    """Loader processes of a set that is not resident; null: sized to the machine."""


@dataclass
class PictureSettings:
    """Augmentation of training images; validation and test images never get any."""

    crop: NonNegativeInt = 4
    """Random crop after padding by this many pixels; 0: off."""
    crop_padding: Literal["zero", "reflect"] = "zero"
    """What the padding holds."""
    resized_crop: AreaShares | None = None
    """Random resized crop (share of the area kept) instead of the padded crop; null: off."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    rand_augment: str | None = None
    """RandAugment in timm's notation, e.g. rand-m7-mstd0.5-inc1; null: off."""
    cutout: NonNegativeInt = 0
    """Side of the square that cutout blanks, in pixels; 0: off."""
    cutout_edge: Literal["clipped", "inside"] = "clipped"
    """clipped: the centre lies anywhere in the image and the square is clipped, as in the paper;
    inside: the whole square lies inside."""
    erasing: Probability = 0.0
    """Probability of random erasing."""
    mixup: NonNegativeFloat = 0.0
    """alpha of mixup; 0: off."""
    cutmix: NonNegativeFloat = 0.0
    """alpha of CutMix; 0: off."""
    cutmix_share: OpenUnit | None = None
    """Share of the batches that take CutMix where mixup is on, too (0.5 in timm's recipes); null:
    the two exclude each other."""
    ricap: NonNegativeFloat = 0.0
    """beta of RICAP (random image cropping and patching); 0: off. With crop 0 the patches are cut
    from the images as they are."""
    dual_cutout: NonNegativeFloat = 0.0
    """alpha of dual cutout: two cutouts of each image, and alpha times the mean squared difference
    of their logits; needs cutout. 0: off."""


@dataclass
class ImageBatchSettings:
    """Batches of images."""

    size: AtLeastTwo = 128
    """Images per optimizer step, over all processes."""
    ghost: AtLeastTwo | None = None
    """Ghost batch norm: images per micro-batch, each with statistics of its own; null: the whole
    batch (of a process) at once."""
    repeats: PositiveInt = 1
    """Repeated augmentation: differently augmented copies of an image in a batch; an epoch still
    holds as many draws as there are images."""
    test_size: PositiveInt = 500
    """Images per batch in validation and test."""


@dataclass
class ClassifierSettings:
    """The network."""

    name: str = "preact20"
    """A preset (siamese-zoo list), or timm/NAME for any timm model."""
    options: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments over the preset's, e.g. {dropout: 0.3}."""
    drop_path: UnitBelowOne = 0.0
    """Stochastic depth of timm models, in [0, 1)."""
    pretrained: bool = False
    """Start from timm's pretrained weights (timm/NAME only)."""


@dataclass
class ClassLossSettings:
    """The loss."""

    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """cross_entropy, or bce (one binary decision per class, "ResNet strikes back")."""
    smoothing: UnitBelowOne = 0.0
    """Label smoothing, in [0, 1)."""
    target_threshold: float | None = None
    """bce: mixed targets above this become 1, all others 0 (0: every mixed class is a 1); null:
    targets as mixed."""


@dataclass
class ClassTrainerSettings:
    """The training loop."""

    epochs: PositiveInt = 160
    """Epochs in all."""
    precision: ClassPrecisionName = "auto"
    """auto: mixed bf16 on GPUs that have it, mixed fp16 with loss scaling on older ones, fp32 on
    CPUs. bf16, fp16: mixed. pure_bf16, pure_fp16: weights, too."""
    channels_last: SwitchOrAuto = "auto"
    """The memory layout that convolutions like; auto: yes, unless a few steps say that a long run
    of one process gets shorter without."""
    compile: Compiling = "auto"
    """Compile the network (torch.compile); auto: where a measurement on a few steps says that a
    long run gets shorter by it. reduce-overhead: with torch's mode of that name, CUDA graphs, for
    small batches on a GPU (a CPU takes it as true), not with `batches.ghost`. Not compiled at all
    in several processes."""
    select: Literal["error", "loss"] = "error"
    """Figure on the validation images that decides which epoch is best."""
    validate_every: PositiveInt = 1
    """Epochs between two validations (the last epoch always is validated)."""
    test_curve: bool = False
    """Test after every validation, too: a curve to look at, it never selects."""
    recalibration_batches: NonNegativeInt | None = None
    """Training batches that re-measure the batch-norm statistics before validation; null: 50 where
    the weights are averaged (schedule-free, EMA), else 0."""
    sync_bn: bool = False
    """Batch norms over all GPUs of a torchrun."""
    log_every: PositiveInt = 50
    """Steps between two points of TensorBoard's training curves."""
    profile: bool = False
    """Profile a few steps (torch.profiler): trace.json in the run's folder, and a line that says
    what a step spends its time on."""


@dataclass
class ClassificationSettings(SavedSettings):
    """All settings of siamese-zoo train."""

    name: PlainName | None = None
    """Name of the run; null: made from the set, the network and the time."""
    seed: Seed = 0
    """Seed of the weights, the batches, the augmentation and the validation split."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    runs: str = "runs"
    """Folder for TensorBoard logs, settings and metrics."""
    checkpoints: str = "checkpoints"
    """Folder for best.pt and last.pt of each run."""
    data: DatasetSettings = field(default_factory=DatasetSettings)
    augment: PictureSettings = field(default_factory=PictureSettings)
    batches: ImageBatchSettings = field(default_factory=ImageBatchSettings)
    model: ClassifierSettings = field(default_factory=ClassifierSettings)
    loss: ClassLossSettings = field(default_factory=ClassLossSettings)
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(
            name="sgd", nesterov=True, weight_decay=1e-4, decay_norms=True
        )
    )
    schedule: ScheduleSettings = field(
        default_factory=lambda: ScheduleSettings(name="multistep", warmup=0.0)
    )
    trainer: ClassTrainerSettings = field(default_factory=ClassTrainerSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)


# Learning rates where none is set: customary ones for small images.
_CLASSIFIER_LR = {
    "sgd": 0.1,
    "sgd_schedulefree": 1.0,
    "radam_schedulefree": 2.5e-3,
    "adamw_schedulefree": 2.5e-3,
    "lars": 0.01,
    "lamb": 5e-3,
}


# Their weights became NaN within a few steps of a small regression.
_BREAK_IN_FP16 = frozenset({"adam", "amsgrad", "adamw", "adamw_schedulefree", "lars"})


def default_classifier_lr(optimizer: str) -> float:
    """Learning rate where none is set; 1e-3 for the Adam family."""
    return _CLASSIFIER_LR.get(optimizer, 1e-3)


# What changes no result: a run may go on with other values, and its name does not depend on them.
CLASSIFICATION_IMMATERIAL = frozenset(
    {
        "device",
        "runs",
        "checkpoints",
        "data.root",  # a set of torchvision is the same wherever it lies
        "data.download",
        "data.workers",
        "batches.test_size",
        "trainer.log_every",
        "trainer.compile",
        "trainer.profile",
        "limits.weights",
        "limits.description",
    }
)


def check_classification(settings: ClassificationSettings) -> None:
    """Refuse settings that cannot work or contradict each other.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    check_values(settings)
    _check_pictures(settings.augment, settings.loss)
    size, ghost = settings.batches.size, settings.batches.ghost
    usable = ghost is None or size % ghost == 0
    require(usable, "batches.ghost", ghost, f"a divisor of `batches.size` ({size})")
    compiling = settings.trainer.compile
    usable = compiling != "reduce-overhead" or ghost is None
    require(usable, "trainer.compile", compiling, "true, false or auto beside `batches.ghost`")
    if settings.model.pretrained and not settings.model.name.startswith("timm/"):
        raise UserError("`model.pretrained` true: only timm/NAME has pretrained weights")
    threshold = settings.loss.target_threshold
    usable = threshold is None or settings.loss.name == "bce"
    require(usable, "loss.target_threshold", threshold, "null, but for bce")
    optimizer = settings.optimizer
    check_optimization(optimizer, settings.schedule)
    for name in ("head_lr_factor", "layer_decay"):
        value = getattr(optimizer, name)
        require(value == 1, f"optimizer.{name}", value, "1: it is for face embedders")
    if settings.trainer.precision == "pure_fp16" and optimizer.name in _BREAK_IN_FP16:
        raise UserError(
            f"`trainer.precision` pure_fp16: {optimizer.name} divides by numbers that are 0 in "
            "float16; use fp16 (mixed), pure_bf16, or sgd"
        )


def _check_pictures(augment: PictureSettings, loss: ClassLossSettings) -> None:
    """Refuse augmentations that exclude each other."""

    def one(name: str, usable: bool, wanted: str) -> None:
        require(usable, f"augment.{name}", getattr(augment, name), wanted)

    usable = augment.resized_crop is None or augment.crop == 0
    one("crop", usable, "0 beside `augment.resized_crop`")
    usable = augment.dual_cutout == 0 or augment.cutout > 0
    one("dual_cutout", usable, "0 without `augment.cutout`")
    mixing = [
        name for name in ("mixup", "cutmix", "ricap", "dual_cutout") if getattr(augment, name)
    ]
    both = mixing[:2] == ["mixup", "cutmix"]
    usable = augment.cutmix_share is None or both
    one("cutmix_share", usable, "null unless `augment.mixup` and `augment.cutmix` are both on")
    alternated = mixing == ["mixup", "cutmix"] and augment.cutmix_share is not None
    if len(mixing) > 1 and not alternated:
        way = "; mixup and cutmix can alternate with `augment.cutmix_share` 0.5"
        raise UserError(
            f"`augment.{mixing[0]}` and `augment.{mixing[1]}` exclude each other: set one of them "
            "to 0" + (way if mixing == ["mixup", "cutmix"] else "")
        )
    if augment.dual_cutout and loss.name == "bce":
        raise UserError("`augment.dual_cutout` is defined for `loss.name` cross_entropy only")


@dataclass
class ClassifierEvalSettings:
    """Settings of siamese-zoo eval."""

    checkpoint: str | None = None
    """best.pt or last.pt of a classification run."""
    part: Literal["test", "validation"] = "test"
    """Which images are judged; validation: those that the run kept aside."""
    root: str | None = None
    """Where the set lies; null: where it lay in training."""
    out: str | None = None
    """Folder for the table, the picture and predictions.npz; null:
    runs/<run>/eval-<part>-<checkpoint>."""
    batch: PositiveInt = 500
    """Images per batch."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, mps."""
    precision: PrecisionName = "fp32"
    """Precision of the forward pass."""
    bins: PositiveInt = 15
    """Bins of the expected calibration error."""
    limits: LimitSettings = field(default_factory=LimitSettings)


def check_classifier_evaluation(settings: ClassifierEvalSettings) -> None:
    """Refuse settings that cannot work.

    Raises:
        UserError: one line that names the setting and the fix.
    """
    if settings.checkpoint is None:
        raise UserError("`checkpoint` is missing: a best.pt or last.pt")
    check_values(settings)
