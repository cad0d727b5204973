"""What is promised to the people a model learns from, and the account of whether the promise is kept."""

import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from recloom.errors import ConfigError, MissingExtraError

COUNTS_NOISE = 4.0
"""Noise of the popularity of items, over that of a gradient step: it is one release among hundreds, its signal is
strong, and so it costs next to nothing."""
ORDERS = [1 + x / 10 for x in range(1, 100)] + [float(order) for order in range(11, 64)] + [128.0, 256.0, 512.0]
"""Orders of Renyi divergence among which the accountant takes the best."""
MOST_NOISE = 1e4
"""Noise multiplier beyond which nothing is learned from anybody."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """What is promised to the people a model learns from: the [privacy] table of a run file."""

    shards: int = 1
    """Models that are trained beside each other, each on some of the people, so that forgetting somebody is to train
    one of them again. Their scores are averaged."""
    epsilon: float | None = None
    """Train with (epsilon, delta)-differential privacy of people: whether somebody was there changes the probability
    of any weights by a factor of at most e^epsilon, up to delta. Unset: no such promise. docs/privacy.md says what it
    covers."""
    delta: float | None = None
    """Probability with which the promise may fail. Unset: 1 / people^1.1."""
    clip_norm: float = 1.0
    """Longest gradient of a person in a step; longer ones are scaled down, and noise goes by it."""
    sample_rate: float = 0.2
    """Probability with which a person takes part in a step."""
    seed: int | None = None
    """Decides who is drawn, and the noise, for tests and benchmarks: whoever knows it can take the noise off. Unset:
    taken from the operating system and kept nowhere."""

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ConfigError(f"privacy.shards is {self.shards}; it has to be at least 1, which is one model of all")
        if self.shards > 1 and self.epsilon is not None:
            raise ConfigError(
                f"privacy.shards is {self.shards} and privacy.epsilon {self.epsilon}; a model trained with noise is"
                " fitted whole, leave one of them out"
            )
        if self.epsilon is not None and not 0 < self.epsilon < np.inf:
            raise ConfigError(
                f"privacy.epsilon is {self.epsilon}; it has to be a positive number, as 8 (leave it out for no privacy)"
            )
        if self.delta is not None and not 0 < self.delta < 1:
            raise ConfigError(f"privacy.delta is {self.delta}; it has to lie between 0 and 1, well below 1 / people")
        if not 0 < self.clip_norm < np.inf:
            raise ConfigError(f"privacy.clip_norm is {self.clip_norm}; it has to be positive")
        if not 0 < self.sample_rate <= 1:
            raise ConfigError(f"privacy.sample_rate is {self.sample_rate}; it has to lie in (0, 1]")


@dataclass(frozen=True)
class PrivacyRecord:
    """What was promised in a fit, for `metrics.json`."""

    epsilon: float
    delta: float
    people: int
    """Who was learned from; taken to be public."""
    noise_multiplier: float
    """Standard deviation of the noise in a step, over `clip_norm`."""
    clip_norm: float
    sample_rate: float
    steps: int
    secret_noise: bool
    """False where the seed of the noise was given: then the promise does not hold against who knows it."""
    accountant: str


@dataclass(frozen=True)
class PrivateRelease:
    """What private training lets out beside the weights."""

    record: PrivacyRecord
    popularity_I: np.ndarray
    """How popular items are, noised; in the place of counts."""


def usual_delta(people: int) -> float:
    """Return a probability well below that of picking out one of so many people."""
    return people**-1.1 if people > 1 else 0.5


def epsilon_spent(noise_multiplier: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the epsilon of so many noised steps and one release of popularity.

    Two data sets are neighbours if one has a person more, with all that person did.

    Source: Mironov, Talwar and Zhang (2019), https://arxiv.org/abs/1908.10530
    """
    accountant = _accountant()
    accountant.history = [(noise_multiplier, sample_rate, steps), (COUNTS_NOISE * noise_multiplier, 1.0, 1)]
    with warnings.catch_warnings():
        # It warns where the best order is the last of the list: the bound holds, and could be a little tighter.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta, alphas=ORDERS))


def noise_needed(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the least noise multiplier, to a hundredth of it, under which no more than epsilon is spent.

    Raises:
        ConfigError: No noise is enough.
        MissingExtraError: The accountant is not installed.
    """
    enough = 0.3
    while epsilon_spent(enough, delta, sample_rate, steps) > epsilon:
        enough *= 2
        if enough > MOST_NOISE:
            raise ConfigError(
                f"privacy.epsilon is {epsilon} with privacy.delta {delta:.1g}, which no noise is enough for over"
                f" {steps:,} steps; raise one of them, or take fewer training.epochs"
            )
    too_little = enough / 2
    while enough / too_little > 1.01:
        middle = (enough * too_little) ** 0.5
        if epsilon_spent(middle, delta, sample_rate, steps) > epsilon:
            too_little = middle
        else:
            enough = middle
    return enough


def accountant_version() -> str:
    """Return the version of the package that keeps the account."""
    return version("opacus")


def _accountant() -> Any:
    try:
        from opacus.accountants import RDPAccountant
    except ImportError:
        raise MissingExtraError("privacy", "training with privacy.epsilon") from None
    return RDPAccountant()
