"""Those who take each training step together: one process, or several that part its batch and add up what they learn.

Shapes: N rows, D width, I rows of a whole table.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)
"""How long workers wait for the one that leads while it alone has something to do, such as to weigh popularity."""


class Workers:
    """One process by itself: every batch is its own, and there is nobody to exchange anything with."""

    rank = 0
    size = 1

    @property
    def is_lead(self) -> bool:
        """Whether this is the one that writes, and whose word counts."""
        return self.rank == 0

    def share(self, rows_N: np.ndarray) -> np.ndarray:
        """Return this worker's part of the rows of a batch; together the parts are the batch."""
        return rows_N[self.rank :: self.size]

    def begin_alike(self, module: nn.Module) -> None:
        """Give everybody the parameters and buffers of the one that leads."""

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Put the sum over all workers in the place of each gradient."""

    def sum(self, value: float) -> float:
        """Return the sum of everybody's value."""
        return value

    def of_lead(self, value: T) -> T:
        """Return the value of the one that leads."""
        return value

    def gather(self, value: T) -> list[T]:
        """Return everybody's value, in the order of the workers."""
        return [value]

    def exchange(self, parts_ND: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Send each worker a stretch of rows, and return what the others sent to this one, likewise in order.

        Args:
            parts_ND: The rows for the first worker, then those for the second, and so on.
            sent: How many rows are for each.
            received: How many rows come from each.
        """
        return parts_ND

    def wait(self) -> None:
        """Wait until everybody has come this far."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Workers":
        return self  # a copy of a model, made for ranking, has the same company


ALONE = Workers()


class Group(Workers):
    """The processes of the default group of `torch.distributed`: gloo between CPUs, nccl between GPUs."""

    def __init__(self) -> None:
        """Join the group that was set up before, as Ray Train does; every process of it has to."""
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # What is no gradient stays in main memory, and nccl moves nothing there.
        self._messages = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)

    def begin_alike(self, module: nn.Module) -> None:
        with torch.no_grad():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0, group=self._messages if tensor.device.type == "cpu" else None)
        module.load_state_dict(module.state_dict())  # modules work out from their state what they do not store

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        dense = []
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._sum_of_rows(parameter.grad)
            elif parameter.grad is not None:
                dense.append(parameter.grad)
        if not dense:
            return
        # One message instead of one for each parameter.
        flat = torch.cat([gradient.flatten() for gradient in dense])
        dist.all_reduce(flat)
        totals = torch.split(flat, [gradient.numel() for gradient in dense])
        for gradient, total in zip(dense, totals, strict=True):
            gradient.copy_(total.view_as(gradient))

    def _sum_of_rows(self, gradient: Tensor) -> Tensor:
        """Add up gradients that are there for some rows only, other ones on each worker."""
        gradient = gradient.coalesce()
        row_N, value_ND = gradient.indices()[0], gradient.values()
        counts = self.gather(len(row_N))
        # Everybody sends everybody the same: an exchange in which each stretch is the whole.
        sent = [len(row_N)] * self.size
        rows = self.exchange(row_N.repeat(self.size), sent, counts)
        values = self.exchange(value_ND.repeat(self.size, 1), sent, counts)
        return torch.sparse_coo_tensor(rows[None], values, gradient.shape).coalesce()

    def sum(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self._messages)
        return total.item()

    def of_lead(self, value: T) -> T:
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._messages)
        return box[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._messages)
        return values

    def exchange(self, parts_ND: Tensor, sent: list[int], received: list[int]) -> Tensor:
        result = parts_ND.new_empty(sum(received), *parts_ND.shape[1:])
        group = self._messages if parts_ND.device.type == "cpu" else None
        dist.all_to_all_single(result, parts_ND.contiguous(), received, sent, group=group)
        return result

    def wait(self) -> None:
        dist.barrier(group=self._messages)


def interleaved(parts: Sequence[Tensor]) -> Tensor:
    """Return the whole table of which each worker holds every so manieth row, in the order of the workers.

    >>> interleaved([torch.tensor([[0], [2]]), torch.tensor([[1]])]).flatten()
    tensor([0, 1, 2])
    """
    whole_ID = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole_ID[rank :: len(parts)] = part
    return whole_ID
