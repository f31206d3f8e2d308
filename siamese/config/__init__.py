"""Every setting, as dataclasses with defaults and one-line help; imports no torch."""

from siamese.config.classification import (
    CLASSIFICATION_IMMATERIAL,
    ClassificationSettings,
    ClassifierEvalSettings,
    ClassifierSettings,
    ClassLossSettings,
    ClassTrainerSettings,
    DatasetName,
    DatasetSettings,
    ImageBatchSettings,
    PictureSettings,
    check_classification,
    check_classifier_evaluation,
    default_classifier_lr,
)
from siamese.config.common import LimitSettings, PrecisionName, ScoringName, usable_pixels
from siamese.config.curation import (
    AuditSettings,
    CheckSettings,
    ConvertFit,
    ConvertSettings,
    DemoSettings,
    FetchSettings,
    MendSettings,
    PictureFormat,
    RestoreSettings,
    SplitListSettings,
    check_curation,
)
from siamese.config.evaluation import (
    CompareSettings,
    CurveSettings,
    EmbeddingFileSettings,
    EmbedSettings,
    IdentifySettings,
    JudgeSettings,
    PeopleSettings,
    PldaSettings,
    ReportSettings,
    ResampledSettings,
    ThresholdSettings,
    check_evaluation,
)
from siamese.config.optimization import (
    SCHEDULE_FREE,
    OptimizerName,
    OptimizerSettings,
    ScheduleSettings,
)
from siamese.config.ranges import LARGEST_DIMENSION, LARGEST_SIDE
from siamese.config.training import (
    CLASS_WEIGHT_LOSSES,
    DEMO_IMAGES,
    DEMO_PEOPLE,
    DEMO_SEED,
    DEMO_SIZE,
    FACE_IMMATERIAL,
    AugmentSettings,
    BatchSettings,
    FitName,
    ImageSettings,
    LossName,
    LossSettings,
    MinerName,
    ModelSettings,
    SplitSettings,
    TrainerSettings,
    TrainSettings,
    check_settings,
    default_lr,
    demo_settings,
)
