"""A decision rule: the threshold that was chosen for a model, and the weight of its scores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from siamese.config import FITTED, ComparedName
from siamese.verification.calibration import Calibration
from siamese.verification.histogram import ScoreHistogram


@dataclass(frozen=True)
class Decision:
    """Two pictures show one person where their score is at least the threshold.

    Attributes:
        threshold: cosine similarity in [-1, 1].
        flip: whether each embedding was averaged with that of the mirrored picture.
        checked: what it does on other people, plain values; empty when it was not checked.
        identification: the threshold of searches in a gallery (``threshold``), the rate of false
            alarms that it was chosen for (``target_fpir``) and what it does, plain values; empty
            when none was chosen.
        scoring: what the cosine was of, ``cosine`` (embeddings as they are), ``plda`` or ``wccn``
            (mapped).
        map: digest of the map; empty for cosine. With any other the decision does not hold.
        histogram: the scores of the people whom it was chosen on; None where older versions chose.
    """

    threshold: float
    target_fmr: float
    calibration: Calibration
    flip: bool = False
    chosen: dict[str, Any] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)
    identification: dict[str, Any] = field(default_factory=dict)
    scoring: ComparedName = "cosine"
    map: str = ""
    histogram: ScoreHistogram | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Decision:
        """The rule that :meth:`as_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: these are not the fields of one.
        """
        numbers = [fields["threshold"], fields["target_fmr"]]
        numbers += [fields["calibration"]["slope"], fields["calibration"]["offset"]]
        if not all(isinstance(n, float) and math.isfinite(n) for n in numbers):
            raise ValueError("a number of the decision is none")
        # Just above 1 nothing is accepted; scores beyond that do not exist.
        if not (-2 <= numbers[0] <= 2 and 0 < numbers[1] < 1 and max(map(abs, numbers)) < 1e12):
            raise ValueError("a number of the decision is out of its range")
        flip, chosen, checked = fields["flip"], fields["chosen"], fields["checked"]
        identification = fields.get("identification", {})  # older checkpoints lack it
        if not isinstance(flip, bool) or not all(
            isinstance(one, dict) for one in (chosen, checked, identification)
        ):
            raise ValueError("a field of the decision is of another kind")
        if identification:
            _require_search(identification)
        scoring, digest = fields.get("scoring", "cosine"), fields.get("map", "")
        known = (("cosine", False), *((name, True) for name in FITTED))
        if (scoring, bool(digest)) not in known or not (
            isinstance(digest, str) and len(digest) <= _DIGEST
        ):
            raise ValueError("the scoring of the decision is none")
        calibration = Calibration(numbers[2], numbers[3])
        spread = fields.get("histogram")  # older checkpoints lack it
        histogram = None if spread is None else ScoreHistogram.from_dict(spread)
        return cls(
            numbers[0], numbers[1], calibration, flip, dict(chosen), dict(checked),
            dict(identification), scoring, digest, histogram,
        )  # fmt: skip


_DIGEST = 64  # characters of SHA-256, hex


def _require_search(fields: dict[str, Any]) -> None:
    """Refuse a threshold of searches that cannot be one; KeyError, ValueError."""
    for name, low, high in (("threshold", -2, 2), ("target_fpir", 0, 1)):
        value = fields[name]
        if not (isinstance(value, float) and low <= value <= high):
            raise ValueError(f"the {name} of identification is out of its range")
