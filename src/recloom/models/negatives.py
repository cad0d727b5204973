"""The items that all targets of a batch are told apart from: one draw for the whole batch, one matrix product."""

import math
from typing import Literal

import torch
from torch import Tensor

Sampling = Literal["uniform", "popularity", "in-batch"]


class Negatives:
    """Draws items of the training data, and says how often each is expected in a draw.

    An item never seen in training is no negative: it would only ever be pushed away, and lose its text's place.
    """

    def __init__(self, counts_I: Tensor, sampling: Sampling, number: int) -> None:
        """Make a sampler.

        Args:
            counts_I: Training interactions of each item.
            sampling: `uniform` over items, by `popularity`, or the targets of the batch itself.
            number: Items in a draw. 0, or more than there are: every item, whatever the sampling.
        """
        self.items_C = counts_I.nonzero().squeeze(1)
        counts_C = counts_I[self.items_C].double()
        self._log_share_I = torch.full((len(counts_I),), -math.inf)
        self._log_share_I[self.items_C] = (counts_C / counts_C.sum()).log().float()
        self._cumulative_C = counts_C.cumsum(0) / counts_C.sum()
        self._sampling, self._number = sampling, number
        self.catalogue_I: Tensor | None = None
        """Which of several catalogues each item is of, where people choose from one at a time; None: there is one."""

    def draw(self, target_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return item indices and the log of the expected number of each in the draw, both of shape (C,)."""
        num_seen, device = len(self.items_C), target_N.device
        if self._sampling == "in-batch":
            return target_N, self._log_share_I.to(device)[target_N] + math.log(len(target_N))
        if not 0 < self._number < num_seen:
            return self.items_C.to(device), torch.zeros(num_seen, device=device)
        if self._sampling == "uniform":
            drawn_C = self.items_C[torch.randint(num_seen, (self._number,))].to(device)
            return drawn_C, torch.full((self._number,), math.log(self._number / num_seen), device=device)
        position_C = torch.searchsorted(self._cumulative_C, torch.rand(self._number, dtype=torch.float64))
        drawn_C = self.items_C[position_C.clamp_max(num_seen - 1)].to(device)
        return drawn_C, self._log_share_I.to(device)[drawn_C] + math.log(self._number)

    def elsewhere(self, target_N: Tensor, candidate_C: Tensor) -> Tensor:
        """Return which candidates are of another catalogue than each target, shape (N, C)."""
        if self.catalogue_I is None:
            return torch.zeros(1, 1, dtype=torch.bool, device=target_N.device)
        catalogue_I = self.catalogue_I.to(target_N.device)
        return catalogue_I[target_N, None] != catalogue_I[candidate_C]
