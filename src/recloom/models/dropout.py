"""Dropout that costs a CPU next to nothing."""

import torch
from torch import Tensor, nn
from torch.nn import functional

BYTES = 8
"""Random bytes in one drawn number."""


class Dropout(nn.Module):
    """Set a share of values to zero in training and scale the rest up, as `torch.nn.Dropout`.

    On a CPU torch draws a number for every value, which was a tenth of a training step. Here each value gets one
    random byte, so that the share is rounded to a 256th.

    Source: Srivastava et al. (2014), https://jmlr.org/papers/v15/srivastava14a.html.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape."""
        zeroed = round(256 * self.share)
        if not self.training or zeroed == 0:
            return values
        if values.device.type != "cpu":
            return functional.dropout(values, self.share)
        drawn = torch.empty(-(-values.numel() // BYTES), dtype=torch.int64)
        drawn.random_(torch.iinfo(torch.int64).min, None)
        is_kept = drawn.view(torch.uint8)[: values.numel()].view(values.shape) >= zeroed
        return values * (is_kept * (256 / (256 - zeroed)))
