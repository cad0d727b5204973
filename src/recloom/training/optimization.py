"""A loss -> better weights: gradient steps, and the moving average of the weights that is kept in the end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recloom.models.dealt_table import DealtTable
from recloom.workers import ALONE, Workers

FIRST_STEPS = 100
"""So many steps are averaged one by one."""
STEPS_BETWEEN = 8
"""Afterwards the average follows every so many steps: often enough, and a large catalogue costs little."""


ROW_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam remembers of each row of a table."""


class Optimization:
    """AdamW for the dense parameters, Adam over the rows in use for large embedding tables, averaged weights.

    The average over steps generalises better than the weights of any single one.
    Source: Polyak and Juditsky (1992), https://doi.org/10.1137/0330046, in the exponential form in use today.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        gradient_clip: float,
        averaging: float,
        workers: Workers = ALONE,
    ) -> None:
        """Begin at the model's weights.

        Args:
            model: Whose parameters to optimise.
            learning_rate: Step size.
            weight_decay: Decay of AdamW.
            gradient_clip: Largest norm of the dense gradient; a longer one is scaled down.
            averaging: How much of the average stays at each step.
            workers: Those whose gradients add up to the one that is followed. A table that is dealt out among them
                (`DealtTable`) has all of its own gradient where its rows are.
        """
        self._name_of: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse]
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._dense = [p for p in self._parameters if all(p is not table for table in tables)]
        self._optimizers: list[torch.optim.Optimizer] = [
            # One pass over the weights instead of ten: a step's largest cost where tables are large.
            torch.optim.AdamW(self._dense, lr=learning_rate, weight_decay=weight_decay, fused=True)
        ]
        if tables:
            self._optimizers.append(torch.optim.SparseAdam(tables, lr=learning_rate))
        self._workers = workers
        self._dealt = [module.weight for module in model.modules() if isinstance(module, DealtTable)]
        self._common = [p for p in self._parameters if all(p is not table for table in self._dealt)]
        self._gradient_clip, self._averaging = gradient_clip, averaging
        self._average = [parameter.detach().clone() for parameter in self._parameters]
        self._steps = 0

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._workers.sum_gradients(self._common)
        torch.nn.utils.clip_grads_with_norm_(self._dense, self._gradient_clip, self._norm())
        self._step()

    def _norm(self) -> Tensor:
        """Return the norm of the dense gradient, the rows of other workers included."""

        def norm_of(parameters: Sequence[Tensor]) -> Tensor:
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

        dealt = [p for p in self._dense if any(p is table for table in self._dealt)]
        if not self._dealt:
            return norm_of(self._dense)
        common = [p for p in self._dense if all(p is not table for table in dealt)]
        elsewhere_too = self._workers.sum(float(norm_of(dealt)) ** 2)
        return (norm_of(common) ** 2 + elsewhere_too).sqrt()

    def step_along(self, gradients: Sequence[Tensor]) -> None:
        """Take one step down a gradient as it is, given for each parameter that is trained, in the model's order."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._step()

    def _step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()
        self._steps += 1
        # Early on the weights change so fast that a long memory would hold nothing but the beginning.
        if self._steps <= FIRST_STEPS:
            self._move_average(min(self._averaging, self._steps / (self._steps + 10)))
        elif self._averaging == 0:
            self._move_average(0.0)
        elif self._steps % STEPS_BETWEEN == 0:
            self._move_average(self._averaging**STEPS_BETWEEN)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average into the model, and the weights of the last step back at the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def moments(self) -> dict[str, Tensor]:
        """Return what the optimisers remember of past gradients, as `PARAMETER.moment`."""
        return {
            f"{self._name_of[parameter]}.{name}": torch.as_tensor(value).cpu().clone()
            for optimizer in self._optimizers
            for parameter, values in optimizer.state.items()
            for name, value in values.items()
        }

    def take_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Go on with what other optimisers of the same parameters remembered, which stays as it is."""
        for optimizer in self._optimizers:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                prefix = f"{self._name_of[parameter]}."
                known = {name.removeprefix(prefix): v for name, v in moments.items() if name.startswith(prefix)}
                if known:
                    optimizer.state[parameter] = {n: _as_kept(optimizer, n, v.clone()) for n, v in known.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that has to be kept to go on from here, apart from the model's weights."""
        tensors = {f"average.{number}": tensor for number, tensor in enumerate(self._average)}
        for number, optimizer in enumerate(self._optimizers):
            for parameter, values in optimizer.state_dict()["state"].items():
                for name, value in values.items():
                    tensors[f"{number}.{parameter}.{name}"] = torch.as_tensor(value)
        return tensors | {"steps": torch.tensor(self._steps)}

    def dealt_tensors(self) -> set[str]:
        """Return the names among those of `tensors` that have a row for each row of a table that is dealt out."""
        names = {f"average.{n}" for n, p in enumerate(self._parameters) if any(p is table for table in self._dealt)}
        for number, optimizer in enumerate(self._optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for place, parameter in enumerate(parameters):
                if any(parameter is table for table in self._dealt):
                    names |= {f"{number}.{place}.{name}" for name in ROW_MOMENTS}
        return names

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        self._steps = int(tensors["steps"])
        for number, average in enumerate(self._average):
            average.copy_(tensors[f"average.{number}"])
        for number, optimizer in enumerate(self._optimizers):
            state: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                kind, _, rest = key.partition(".")
                if kind == str(number):
                    parameter, _, name = rest.partition(".")
                    state.setdefault(int(parameter), {})[name] = _as_kept(optimizer, name, value)
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def _move_average(self, kept: float) -> None:
        weights: list[Tensor] = [parameter.detach() for parameter in self._parameters]
        torch._foreach_lerp_(self._average, weights, 1 - kept)

    def _swap(self) -> None:
        for number, parameter in enumerate(self._parameters):
            parameter.data, self._average[number] = self._average[number], parameter.data


def _as_kept(optimizer: torch.optim.Optimizer, name: str, value: Tensor) -> Any:
    """Return a value as the optimiser keeps it: SparseAdam counts its steps in a plain number."""
    return int(value) if name == "step" and isinstance(optimizer, torch.optim.SparseAdam) else value
