"""Times -> small numbers that an embedding table can hold: how long between two events, and when on the clock."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from recloom.dataset import SECONDS_PER_DAY

Times = TypeVar("Times", Tensor, np.ndarray)

GAP_BUCKETS = 32
"""Gaps are told apart by their power of two, in seconds: 2^31 s is 68 years."""
HOURS, WEEKDAYS = 24, 7
SECONDS_PER_HOUR = 3_600


def gap_buckets(seconds: Tensor) -> Tensor:
    """Number gaps by powers of two: 0 for none, 1 for a second, 2 for up to 3 seconds, and so on.

    >>> gap_buckets(torch.tensor([-5, 0, 1, 2, 3, 4, 86_400]))
    tensor([ 0,  0,  1,  2,  2,  3, 17])
    """
    # frexp gives the exponent exactly, where a logarithm would round.
    return torch.frexp(seconds.clamp_min(0).double()).exponent.clamp(0, GAP_BUCKETS - 1).long()


def gap_buckets_of(seconds: np.ndarray) -> np.ndarray:
    """Number gaps as `gap_buckets` does, without a tensor: for a few gaps the calls are what takes time.

    >>> gap_buckets_of(np.array([-5, 0, 1, 2, 3, 4, 86_400])).tolist()
    [0, 0, 1, 2, 2, 3, 17]
    """
    return np.minimum(np.frexp(np.maximum(seconds, 0).astype(np.float64))[1], GAP_BUCKETS - 1)


def hours(timestamp: Times) -> Times:
    """Return the hour of the day in UTC, 0 to 23."""
    return timestamp // SECONDS_PER_HOUR % HOURS


def weekdays(timestamp: Times) -> Times:
    """Return the day of the week in UTC, 0 to 6, Thursday (the first of January 1970) being 0."""
    return timestamp // SECONDS_PER_DAY % WEEKDAYS
