"""A decision rule: the threshold that was chosen for a model, and the weight of its scores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from siamese.verification.calibration import Calibration


@dataclass(frozen=True)
class Decision:
    """Two pictures show one person where their score is at least the threshold.

    Attributes:
        threshold: cosine similarity in [-1, 1].
        checked: what it does on other people, plain values; empty when it was not checked.
    """

    threshold: float
    target_fmr: float
    calibration: Calibration
    flip: bool = False
    chosen: dict[str, Any] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)

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
        if not (isinstance(flip, bool) and isinstance(chosen, dict) and isinstance(checked, dict)):
            raise ValueError("a field of the decision is of another kind")
        calibration = Calibration(numbers[2], numbers[3])
        return cls(numbers[0], numbers[1], calibration, flip, dict(chosen), dict(checked))
