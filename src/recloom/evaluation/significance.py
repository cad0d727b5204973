"""Values of single cases -> how far chance alone could have moved their means.

Shapes: B cases, M metrics, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recloom.errors import ConfigError

BOOTSTRAP_SAMPLES = 1_000
PERMUTATION_SAMPLES = 9_999
COUNTS_AT_ONCE = 2_000_000
"""Most bootstrap counts held in memory together, 16 MB."""
SIGNS = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
"""The signs that each byte stands for, shape (256, 8)."""


@dataclass(frozen=True)
class PairedDifference:
    """How much better one model did than another on the same cases."""

    mean: float
    """Mean over cases of the first value minus the second."""
    low: float
    """Lower end of the 95 % bootstrap interval of the mean."""
    high: float
    effect_size: float
    """Cohen's d_z, the mean over the standard deviation of the differences; infinite where all are the same."""
    p_value: float
    """Two-sided, of the sign-flip permutation test."""


def paired_difference(first_B: np.ndarray, second_B: np.ndarray, seed: int = 0) -> PairedDifference:
    """Compare two models case by case.

    Where the models are equally good, each difference could as well have had the other sign. The p-value is the
    share of random signs, the observed ones among them, that move the mean at least as far from 0.

    Args:
        first_B: A metric's value for every case, shape (B,). Cases for which either value is NaN are left out.
        second_B: The other model's, of the same cases in the same order.
        seed: Decides the samples.

    Raises:
        ConfigError: The cases are not the same number, or no case has both values.

    Source: Fisher (1935), The Design of Experiments, section 21; Smucker et al. (2007),
    https://doi.org/10.1145/1321440.1321528; d_z: Lakens (2013), https://doi.org/10.3389/fpsyg.2013.00863
    """
    if first_B.shape != second_B.shape:
        raise ConfigError(
            f"the first model has values of {len(first_B):,} cases and the second of {len(second_B):,};"
            " evaluate both on the same split"
        )
    difference_B = first_B - second_B
    difference_B = difference_B[~np.isnan(difference_B)]
    if len(difference_B) == 0:
        raise ConfigError("no case has a value of both models; compare a metric that is defined for some case")
    mean = float(difference_B.mean())
    if np.ptp(difference_B) == 0:
        effect_size = float(np.copysign(np.inf, mean)) if mean else 0.0
    else:
        effect_size = mean / float(difference_B.std(ddof=1))
    low_1, high_1 = bootstrap_intervals(difference_B[:, None], seed)
    return PairedDifference(mean, float(low_1[0]), float(high_1[0]), effect_size, _sign_flip_p(difference_B, seed))


def _sign_flip_p(difference_B: np.ndarray, seed: int) -> float:
    """Return the two-sided p-value; a difference of 0 has no sign to flip, so it is passed over."""
    difference_B = difference_B[difference_B != 0]
    if len(difference_B) == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    sum_S = np.zeros(PERMUTATION_SAMPLES)
    for begin in range(0, len(difference_B), 8):
        eight = difference_B[begin : begin + 8]
        sum_by_byte = SIGNS[:, : len(eight)] @ eight
        sum_S += sum_by_byte[rng.integers(256, size=PERMUTATION_SAMPLES, dtype=np.uint8)]
    rounding = 1e-10 * np.abs(difference_B).sum()  # sums that are equal on paper count as equal
    exceedances = np.count_nonzero(np.abs(sum_S) >= abs(difference_B.sum()) - rounding)
    return float((1 + exceedances) / (1 + PERMUTATION_SAMPLES))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values adjusted for how many there are, in the order given, none above 1.

    Rejecting those below a level then keeps the chance of any false rejection below that level.

    Source: Holm (1979), https://www.jstor.org/stable/4615733

    >>> holm([0.03, 0.01, 0.04])
    array([0.06, 0.03, 0.06])
    """
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given)
    adjusted = np.empty_like(given)
    adjusted[order] = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    return np.minimum(adjusted, 1)


def bootstrap_intervals(values_BM: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % percentile interval of each column's mean over cases, each of shape (M,).

    NaN marks a case for which a metric is not defined: the mean of a resample is over those for which it is.
    A column that is NaN for every case has NaN for its ends.

    Source: Efron (1979), https://doi.org/10.1214/aos/1176344552
    """
    is_defined_BM = ~np.isnan(values_BM)
    sums_SM, shares_SM = np.hsplit(resampled_means(np.hstack([np.nan_to_num(values_BM), is_defined_BM]), seed), 2)
    means_SM = np.divide(sums_SM, shares_SM, out=np.full_like(sums_SM, np.nan), where=shares_SM > 0)
    ends_2M = np.full((2, values_BM.shape[1]), np.nan)
    known = ~np.isnan(means_SM).all(axis=0)
    ends_2M[:, known] = np.nanquantile(means_SM[:, known], [0.025, 0.975], axis=0)
    return ends_2M[0], ends_2M[1]


def resampled_means(values_BM: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the mean of each column over B cases drawn with replacement, many times over; shape (S, M)."""
    num_cases = len(values_BM)
    # With some thousand cases the means are so close to normal that fewer samples find the same interval.
    samples = BOOTSTRAP_SAMPLES if num_cases <= 10_000 else BOOTSTRAP_SAMPLES // 4
    rng = np.random.default_rng(seed)
    shares = np.full(num_cases, 1 / num_cases)
    at_once = max(1, COUNTS_AT_ONCE // num_cases)
    sizes = [min(at_once, samples - begin) for begin in range(0, samples, at_once)]
    sums = [rng.multinomial(num_cases, shares, size=size).astype(float) @ values_BM for size in sizes]
    return np.concatenate(sums) / num_cases
