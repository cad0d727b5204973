"""Recommend anything: what a list is worth that knows nothing."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.models.interface import CountedModel, ItemText, Scorer, TrainingData

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Hyperparameters of `random`: the [model] table of a run file."""

    seed: int = 0
    """Another seed gives other lists."""


class RandomOrder(CountedModel):
    """Every order of the catalogue is as likely as any other, and the same history always gets the same one."""

    name = "random"
    Config = RandomConfig
    uses_text = False

    def __init__(self, config: RandomConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)

    def count(self, data: TrainingData) -> None:
        """There is nothing to learn."""

    def scorer(self) -> Scorer:
        def score(histories: Histories) -> Tensor:
            rows = np.arange(len(histories))
            last_B = histories.item_index_BL[rows, histories.length_B - 1].astype(np.uint64)
            whole_B = (histories.end_B - histories.start_B).astype(np.uint64)
            row_B = _mixed(last_B + _mixed(whole_B + _mixed(np.array([self.config.seed], dtype=np.uint64))))
            return self._numbers(row_B)

        return score

    def similarity(self, item_index: int) -> Tensor:
        return self._numbers(_mixed(np.array([item_index], dtype=np.uint64)))[0]

    def _numbers(self, row_B: np.ndarray) -> Tensor:
        """Return numbers in [0, 1) that look random, shape (B, I)."""
        mixed_BI = _mixed(row_B[:, None] + _mixed(np.arange(self.num_items + 1, dtype=np.uint64)))
        return torch.from_numpy((mixed_BI >> np.uint64(11)) / 2.0**53)


def _mixed(value: np.ndarray) -> np.ndarray:
    """Return whole numbers that tell nothing of those they come from: the finaliser of splitmix64.

    Source: Steele, Lea and Flood (2014), https://doi.org/10.1145/2660193.2660195.
    """
    value = value + _MIX[0]
    value = (value ^ (value >> np.uint64(30))) * _MIX[1]
    value = (value ^ (value >> np.uint64(27))) * _MIX[2]
    return value ^ (value >> np.uint64(31))
