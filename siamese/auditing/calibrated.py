"""Evidence to probability, learnt from the audited folder itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from siamese.auditing.two_covariance import Floats

_ROUNDS = 20
_PRIOR_CASES = 20  # how many cases the prior counts for


def probability(
    evidence: npt.ArrayLike, found: npt.ArrayLike, absent: npt.ArrayLike, prior: float
) -> Floats:
    """Probability of what the evidence speaks for: Platt's logistic, refitted to a prior.

    Args:
        evidence: values to judge, any shape.
        found: values where it is known to be so, (n,), at least one.
        absent: values where it is rarely so, (m,), at least one; those where it probably is so
            after all count less and less (EM).
        prior: how often it is so, in (0, 1).

    Returns:
        Probabilities in [0, 1], of the shape of ``evidence``.
    """
    found, absent = np.asarray(found, np.float64), np.asarray(absent, np.float64)
    centre = float(np.median(absent))
    spreads = [np.median(np.abs(values - np.median(values))) for values in (found, absent)]
    spread = max(float(min(spreads)), 1e-9)

    def scaled(values: npt.ArrayLike) -> Floats:
        return np.asarray((np.asarray(values) - centre) / spread)

    values = np.concatenate([scaled(found), scaled(absent)])[:, None]
    truth = np.concatenate([np.ones(len(found)), np.zeros(len(absent))])
    so = (absent >= np.quantile(found, 0.05)).astype(np.float64)
    for _ in range(_ROUNDS):
        share = (so.sum() + prior * _PRIOR_CASES) / (len(absent) + _PRIOR_CASES)
        counted = np.concatenate([np.full(len(found), 1 / len(found)), 1 - so])
        counted[len(found) :] /= max(counted[len(found) :].sum(), 1e-9)
        model = LogisticRegression(C=1e3).fit(values, truth, sample_weight=counted * len(values))
        slope = max(float(model.coef_[0, 0]), 0.0)  # evidence never speaks against itself
        offset = float(model.intercept_[0]) + logit(share)
        so = expit(slope * scaled(absent) + offset)
    return np.asarray(expit(slope * scaled(evidence) + offset))
