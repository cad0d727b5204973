"""A moving average of a model's weights, which generalises better than the weights of any single step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

FIRST_STEPS = 100
"""So many steps are averaged one by one."""
STEPS_BETWEEN = 8
"""Afterwards the average follows every so many steps: often enough, and a large catalogue costs little."""


class WeightAverage:
    """Exponential moving average of parameters over training steps.

    Source: Polyak and Juditsky (1992), https://doi.org/10.1137/0330046, in the exponential form in use today.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin at the model's weights.

        Args:
            model: Whose weights to average.
            decay: How much of the average stays at each step.
        """
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.tensors = [parameter.detach().clone() for parameter in self._parameters]
        self._decay = decay
        self.steps = 0

    def update(self) -> None:
        """Take note that a step was made."""
        self.steps += 1
        # Early on the weights change so fast that a long memory would hold nothing but the beginning.
        if self.steps <= FIRST_STEPS:
            self._move(min(self._decay, self.steps / (self.steps + 10)))
        elif self.steps % STEPS_BETWEEN == 0:
            self._move(self._decay**STEPS_BETWEEN)

    def _move(self, kept: float) -> None:
        weights: list[Tensor] = [parameter.detach() for parameter in self._parameters]
        torch._foreach_lerp_(self.tensors, weights, 1 - kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model, and the weights of the last step back at the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for number, parameter in enumerate(self._parameters):
            parameter.data, self.tensors[number] = self.tensors[number], parameter.data
