"""Evidence to probability, learnt from the audited folder itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm

from siamese.auditing.two_covariance import Floats


def probability(
    evidence: npt.ArrayLike, found: npt.ArrayLike, absent: npt.ArrayLike, prior: float
) -> Floats:
    """Probability of what the evidence speaks for.

    Two normal distributions, one of evidence where it is so and one where it is not, are laid
    through quantiles that a minority of contrary cases does not move. How often it is so is not
    estimated: where the two overlap, that climbs to anything.

    Args:
        evidence: values to judge, any shape.
        found: values where it is known to be so, (n,), at least one.
        absent: values where it is mostly not so, (m,), at least one.
        prior: how often it is so, in (0, 1).

    Returns:
        Probabilities in [0, 1], of the shape of ``evidence``; they rise with it.
    """
    low, middle, high = np.quantile(np.asarray(found, np.float64), [0.16, 0.5, 0.84])
    below, centre = np.quantile(np.asarray(absent, np.float64), [0.16, 0.5])
    # The hidden cases are all above: only the lower side tells how absent values scatter.
    narrow = max(centre - below, 1e-6)
    wide = max((high - low) / 2, narrow)

    def log_ratio(values: npt.ArrayLike) -> Floats:
        raised = np.maximum(values, centre)  # below, the wider distribution would win again
        so = norm.logpdf(raised, max(middle, centre), wide)
        return np.asarray(so - norm.logpdf(raised, centre, narrow))

    return np.asarray(expit(log_ratio(evidence) + logit(prior)))
