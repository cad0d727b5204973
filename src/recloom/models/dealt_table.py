"""A table of which each worker holds some rows, and that all of them look rows up in as if it were whole.

Shapes: N rows asked for, M rows that others ask this worker for, R rows held here, I rows in all, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX
from recloom.workers import Workers, interleaved


class DealtTable(nn.Embedding):
    """Every so manieth row of an embedding table: row `i` is with worker `i % size`.

    Item indices follow popularity in many a log, and dealing them out one by one gives everybody as much to do. An
    optimiser sees the rows that are here alone, so that its memory is dealt out as well. A row's gradient is summed
    over all who looked it up, which is what a whole table on one worker would get.
    """

    def __init__(self, whole: nn.Embedding, workers: Workers) -> None:
        rows_RD = own_rows(whole.weight.detach(), workers)
        super().__init__(rows_RD.shape[0], rows_RD.shape[1], sparse=whole.sparse, _weight=rows_RD)
        self._workers = workers

    def look_up(self, route: "Route") -> Tensor:
        """Return the rows that a route leads to, shape (N, D)."""
        rows_MD = functional.embedding(route.asked_M, self.weight, sparse=self.sparse)
        return _FromOwners.apply(rows_MD, route)  # type: ignore[no-untyped-call]

    def collected(self) -> nn.Embedding | None:
        """Return the whole table on the worker that leads, None on the others."""
        whole_ID = collected(self.weight.detach(), self._workers)
        if whole_ID is None:
            return None
        rows, width = whole_ID.shape
        return nn.Embedding(rows, width, padding_idx=PADDING_INDEX, sparse=self.sparse, _weight=whole_ID)


class Route:
    """Who holds the rows that are asked for, and what the others ask of this worker: good for any table so dealt."""

    def __init__(self, rows_N: Tensor, workers: Workers) -> None:
        """Tell everybody what this worker wants of them; all have to do so together.

        Args:
            rows_N: Rows of the whole table.
            workers: Among whom it was dealt.
        """
        self.workers = workers
        owner_N = rows_N % workers.size
        self.order_N = torch.argsort(owner_N, stable=True)
        self.wanted = torch.bincount(owner_N, minlength=workers.size).tolist()
        counts = torch.tensor(self.wanted, dtype=torch.long, device=rows_N.device)
        ones = [1] * workers.size
        self.given: list[int] = workers.exchange(counts, ones, ones).tolist()
        places_N = torch.div(rows_N, workers.size, rounding_mode="floor")[self.order_N]
        self.asked_M = workers.exchange(places_N, self.wanted, self.given)

    def fetch(self, table_RD: Tensor) -> Tensor:
        """Return the rows asked for of a table that does not learn, shape (N, D)."""
        return self.in_order(self.workers.exchange(table_RD[self.asked_M], self.given, self.wanted))

    def in_order(self, rows_ND: Tensor) -> Tensor:
        return torch.empty_like(rows_ND).index_copy_(0, self.order_N, rows_ND)


class _FromOwners(torch.autograd.Function):
    """Rows go from who holds them to who asks for them; gradients go back the same way."""

    @staticmethod
    def forward(ctx: Any, rows_MD: Tensor, route: Route) -> Tensor:
        ctx.route = route
        return route.in_order(route.workers.exchange(rows_MD, route.given, route.wanted))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        route: Route = ctx.route
        return route.workers.exchange(gradients[0][route.order_N], route.wanted, route.given), None


def own_rows(whole_ID: Tensor, workers: Workers) -> Tensor:
    """Return the rows of a table that are this worker's to hold, shape (R, D)."""
    return whole_ID[workers.rank :: workers.size].contiguous()


def collected(rows_RD: Tensor, workers: Workers) -> Tensor | None:
    """Return the whole table of which everybody holds `own_rows`, on the worker that leads; None on the others."""
    counts = workers.gather(len(rows_RD))
    sent = [len(rows_RD)] + [0] * (workers.size - 1)
    received = counts if workers.is_lead else [0] * workers.size
    parts = workers.exchange(rows_RD, sent, received)
    return interleaved(torch.split(parts, counts)) if workers.is_lead else None
