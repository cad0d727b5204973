"""A log of what was shown and what came of it -> how a model that shows other items would have done.

The model is thought to show one item of its list at the logged place, each with the same probability: 1 / K for a
full list. Every estimate needs a log in which every item of its lists could have been shown.

Shapes: N exposures, K length of the lists, S samples.
"""

from dataclasses import dataclass

import numpy as np

from recloom.dataset import PADDING_INDEX
from recloom.errors import ConfigError
from recloom.evaluation.significance import resampled_means


@dataclass(frozen=True)
class Estimate:
    """Mean reward of an exposure, and its 95 % bootstrap interval over exposures."""

    mean: float
    low: float
    high: float
    matched: int
    """Exposures that say something: those whose item the model would have listed."""


def replay_rate(shown_N: np.ndarray, clicked_N: np.ndarray, recommended_NK: np.ndarray, *, seed: int = 0) -> Estimate:
    """Return the mean reward over the exposures whose item the model would have listed.

    This is right where the log showed every item with the same probability, whoever was asked, and wrong otherwise:
    then `inverse_propensity_rate` is the one to use.

    Args:
        shown_N: Index of the item that was shown; `PADDING_INDEX` for one that is not in the catalogue.
        clicked_N: 1 where it was clicked and 0 where not, or any other reward.
        recommended_NK: What the model would list at that exposure, padded with `PADDING_INDEX`; shape (N, K).
        seed: Decides the bootstrap samples.

    Raises:
        ConfigError: The lengths differ, or the model would have listed no item that was shown.

    Source: Li et al. (2011), https://doi.org/10.1145/1935826.1935878
    """
    is_listed_NK = _is_listed(shown_N, clicked_N, recommended_NK)
    return _estimates(is_listed_NK.any(axis=1).astype(float), clicked_N, seed)[1]


def inverse_propensity_rate(
    shown_N: np.ndarray,
    clicked_N: np.ndarray,
    recommended_NK: np.ndarray,
    propensity_N: np.ndarray,
    clip: float,
    *,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """Return two estimates of the model's mean reward from a log that did not show all items alike.

    An exposure weighs as much as the model shows that item more often than the log did: 1 / K over its propensity
    where it is in the list, 0 elsewhere. K is the number of items in that list, padding not counted.

    Args:
        shown_N: Index of the item that was shown; `PADDING_INDEX` for one that is not in the catalogue.
        clicked_N: 1 where it was clicked and 0 where not, or any other reward.
        recommended_NK: What the model would list at that exposure, padded with `PADDING_INDEX`; shape (N, K).
        propensity_N: Probability with which the log showed that item then and there, in (0, 1].
        clip: Largest weight; larger ones are cut to it, for less variance and some bias. Infinite: none is cut.
        seed: Decides the bootstrap samples.

    Returns:
        IPS, the mean of weight times reward, without bias where nothing is clipped; and SNIPS, the same over the
        mean weight, which varies less and stays within the range of the rewards.

    Raises:
        ConfigError: The lengths differ, a propensity is outside (0, 1], the clip is not above 0, or the model would
            have listed no item that was shown.

    Source: Horvitz and Thompson (1952), https://doi.org/10.1080/01621459.1952.10483446; Swaminathan and Joachims
    (2015), The Self-Normalized Estimator for Counterfactual Learning, NIPS 28
    """
    is_listed_NK = _is_listed(shown_N, clicked_N, recommended_NK, propensity_N)
    is_wrong_N = ~((propensity_N > 0) & (propensity_N <= 1))
    if is_wrong_N.any():
        raise ConfigError(
            f"{is_wrong_N.sum():,} propensities are outside (0, 1], the first being {propensity_N[is_wrong_N][0]};"
            " give the probability with which each item was shown"
        )
    if not clip > 0:
        raise ConfigError(f"the clip is {clip} and has to be above 0; weights larger than it are cut to it")
    chosen_N = is_listed_NK.any(axis=1) / np.maximum((recommended_NK != PADDING_INDEX).sum(axis=1), 1)
    return _estimates(np.minimum(chosen_N / propensity_N, clip), clicked_N, seed)


def _is_listed(
    shown_N: np.ndarray, clicked_N: np.ndarray, recommended_NK: np.ndarray, *others: np.ndarray
) -> np.ndarray:
    lengths = [len(values) for values in (shown_N, clicked_N, recommended_NK, *others)]
    if len(set(lengths)) > 1:
        raise ConfigError(
            f"the arrays are of {', '.join(f'{n:,}' for n in lengths)} exposures; each needs a row for every exposure"
        )
    is_listed_NK = (recommended_NK == shown_N[:, None]) & (shown_N != PADDING_INDEX)[:, None]
    if not is_listed_NK.any():
        raise ConfigError(
            f"none of {len(shown_N):,} shown items is in the model's list at that exposure; lengthen the lists or bring"
            " a log that shows more of the catalogue"
        )
    return is_listed_NK


def _estimates(weight_N: np.ndarray, clicked_N: np.ndarray, seed: int) -> tuple[Estimate, Estimate]:
    """Return the mean of weight times reward, and the same over the mean weight."""
    gain_and_weight_N2 = np.stack([weight_N * clicked_N, weight_N], axis=1)
    gain, weight = gain_and_weight_N2.mean(axis=0)
    gain_S, weight_S = resampled_means(gain_and_weight_N2, seed).T
    has_weight_S = weight_S > 0
    matched = int(np.count_nonzero(weight_N))
    return (
        _estimate(gain, gain_S, matched),
        _estimate(gain / weight, gain_S[has_weight_S] / weight_S[has_weight_S], matched),
    )


def _estimate(mean: float, mean_S: np.ndarray, matched: int) -> Estimate:
    low, high = np.quantile(mean_S, [0.025, 0.975])
    return Estimate(float(mean), float(low), float(high), matched)
