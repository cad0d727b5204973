"""Item vectors as search wants them: fast products that are nearly right, exact ones in double precision.

Shapes: B queries, N items asked for, I catalogue (with the padding row and spare rows), D width, W coordinates that
spread widely, P further coordinates of popularity, T towers, M pairs of coordinates, K centroids of each.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from recloom.models import VectorModel
from recloom.models.coded_items import ROWS_AT_ONCE, CodedItems
from recloom.models.weave import Weave

SINGLE_EPSILON = 2.0**-23
MANY_VALUES = 1_000_000
"""Coordinates of a catalogue from which on reading them is most of a product, and fewer bytes are faster."""
LARGEST, LARGEST_OF_QUERY = 63, 127
"""Of the whole numbers that stand for coordinates of items and of queries. Seven bits for items: processors without
VNNI add 128 to a query's and then two products in 16 bits, which eight and eight bits would overflow."""
SMALLEST = torch.finfo(torch.double).tiny
WIDE = 4.0
"""Spread of a coordinate, in usual ones, from which on it stays in single precision: few do, such as popularity, and
would cost all others their precision."""


class ItemTable(ABC):
    """The item vectors of a model in double precision whose weights are fixed."""

    size: int
    """Rows, I."""
    longest: float
    """Length of the longest vector."""

    @abstractmethod
    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return products with some items, or with all, in single precision.

        Returns:
            The products, shape (B, N), and by how much those of a query may differ from the exact ones, shape (B,).
        """

    @abstractmethod
    def exact(self, rows_N: Tensor) -> Tensor:
        """Return vectors in double precision, shape (N, D)."""

    @abstractmethod
    def whole(self) -> Tensor:
        """Return all vectors in single precision, shape (I, D)."""

    @abstractmethod
    def read(self, rows_N: Tensor) -> None:
        """Take over what has become of some items in the model."""

    def _rounding(self, query_BD: Tensor) -> Tensor:
        """Return twice what rounding to single precision can make of the sum of D products, shape (B,)."""
        return 2 * query_BD.shape[1] * SINGLE_EPSILON * (query_BD.norm(dim=1) * self.longest + 1.0)


class WholeTable(ItemTable):
    """Every vector, in double precision and in single."""

    def __init__(self, model: VectorModel, exact_ID: Tensor) -> None:
        self._model = model
        self._exact_ID = exact_ID
        self.size = len(self._exact_ID)
        self.longest = float(self._exact_ID.norm(dim=1).max())
        self._prepare()

    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        fast_ND = self._fast_ID if rows_N is None else self._fast_ID[rows_N]
        return query_BD.float() @ fast_ND.T, self._rounding(query_BD)

    def exact(self, rows_N: Tensor) -> Tensor:
        return self._exact_ID[rows_N]

    def whole(self) -> Tensor:
        return self._exact_ID.float()

    def read(self, rows_N: Tensor) -> None:
        vectors_ND = self._model.item_vectors(rows_N)
        self._exact_ID[rows_N] = vectors_ND
        self.longest = max(self.longest, float(vectors_ND.norm(dim=1).max()))
        self._take(rows_N)

    def _prepare(self) -> None:
        self._fast_ID = self._exact_ID.float()

    def _take(self, rows_N: Tensor) -> None:
        self._fast_ID[rows_N] = self._exact_ID[rows_N].float()


class RoundedTable(WholeTable):
    """Every vector, in double precision and in whole numbers of a step for each coordinate.

    A query takes up the steps of the coordinates and is rounded too, so that products are those of bytes, which are
    read and multiplied several times as fast as single precision. They are off by at most the lengths of what rounding
    took from an item and from the query, each times the length of the other (Cauchy and Schwarz).
    """

    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        every: Tensor | slice = slice(None) if rows_N is None else rows_N
        scaled_BD = query_BD * self._step_D
        step_B1 = (scaled_BD.abs().amax(dim=1, keepdim=True) / LARGEST_OF_QUERY).clamp_min(SMALLEST)
        code_BD = (scaled_BD / step_B1).round_()
        product_BN = torch._int_mm(code_BD.to(torch.int8), self._code_ID[every].T) * step_B1.float()
        product_BN.addmm_(query_BD[:, self._wide_W].float(), self._wide_IW[every].T)
        lost_B = (scaled_BD - code_BD * step_B1).norm(dim=1) * self._longest_code
        return product_BN, lost_B + scaled_BD.norm(dim=1) * self._most_lost + self._rounding(query_BD)

    def _prepare(self) -> None:
        spread_D = self._exact_ID.abs().amax(dim=0)
        usual = spread_D[spread_D > 0].median() if spread_D.any() else 0.0
        self._is_wide_D = spread_D > WIDE * usual
        self._wide_W = self._is_wide_D.nonzero().squeeze(1)
        self._step_D = spread_D.masked_fill(self._is_wide_D, 0.0) / LARGEST
        self._code_ID = torch.empty(self._exact_ID.shape, dtype=torch.int8)
        self._wide_IW = torch.empty(self.size, len(self._wide_W))
        self._most_lost = self._longest_code = 0.0
        for rows_N in torch.split(torch.arange(self.size), ROWS_AT_ONCE):
            self._round(rows_N)

    def _take(self, rows_N: Tensor) -> None:
        is_outside_ND = self._exact_ID[rows_N].abs() > self._step_D * (LARGEST + 0.5)
        if is_outside_ND[:, ~self._is_wide_D].any():
            self._prepare()  # longer steps for all, or the bound would be loose
        else:
            self._round(rows_N)

    def _round(self, rows_N: Tensor) -> None:
        """Store some items, and how much of them is lost at most."""
        vectors_ND = self._exact_ID[rows_N]
        steps_ND = torch.where(self._step_D > 0, vectors_ND / self._step_D, 0.0)
        code_ND = steps_ND.round().clamp_(-LARGEST, LARGEST)
        self._code_ID[rows_N] = code_ND.to(torch.int8)
        self._wide_IW[rows_N] = vectors_ND[:, self._wide_W].float()
        self._most_lost = max(self._most_lost, float((steps_ND - code_ND).norm(dim=1).max()))
        self._longest_code = max(self._longest_code, float(code_ND.norm(dim=1).max()))


class CodedTable(ItemTable):
    """Codes alone: a query is multiplied with every centroid once, and an item's product looked up by its codes.

    Source: the asymmetric distance of Jegou, Douze and Schmid (2011), https://doi.org/10.1109/TPAMI.2010.57.
    """

    def __init__(self, model: Weave) -> None:
        self._model = model
        self._tables = [tower.items for tower in model._towers if isinstance(tower.items, CodedItems)]
        # One pair of coordinates after the other is read in a row.
        self._codes = [items.code_IM.T.contiguous() for items in self._tables]
        self.size = self._codes[0].shape[1]
        self._scale_TI = torch.zeros(len(self._tables), self.size)
        self._popularity_IP = model.prior.features_IP.float()
        self.longest = 0.0
        for rows_N in torch.split(torch.arange(self.size), ROWS_AT_ONCE):
            self._measure(rows_N)

    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        every: Tensor | slice = slice(None) if rows_N is None else rows_N
        width = self._model.config.embedding_dim
        product_BN = query_BD[:, width * len(self._tables) :].float() @ self._popularity_IP[every].T
        for number, (items, code_MI) in enumerate(zip(self._tables, self._codes, strict=True)):
            own_BD = query_BD[:, width * number : width * (number + 1)]
            code_MN = code_MI if rows_N is None else code_MI[:, rows_N]
            product_BN += _looked_up(own_BD, items, code_MN) * self._scale_TI[number, every]
        return product_BN, self._rounding(query_BD)

    def exact(self, rows_N: Tensor) -> Tensor:
        return self._model.item_vectors(rows_N)

    def whole(self) -> Tensor:
        parts = torch.split(torch.arange(self.size), ROWS_AT_ONCE)
        return torch.cat([self._model.item_vectors(rows_N).float() for rows_N in parts])

    def read(self, rows_N: Tensor) -> None:
        for items, code_MI in zip(self._tables, self._codes, strict=True):
            code_MI[:, rows_N] = items.code_IM[rows_N].T
        self._measure(rows_N)

    def _measure(self, rows_N: Tensor) -> None:
        """Find how much longer the vectors of some items are than what their codes stand for."""
        for number, (tower, items) in enumerate(zip(self._model._towers, self._tables, strict=True)):
            scored_ND, coded_ND = tower.item_vectors(rows_N), items.directions(rows_N)
            length_N = coded_ND.norm(dim=1)
            self._scale_TI[number, rows_N] = torch.where(length_N > 0, scored_ND.norm(dim=1) / length_N, 0.0).float()
        self.longest = max(self.longest, float(self._model.item_vectors(rows_N).norm(dim=1).max()))


def _looked_up(query_BD: Tensor, items: CodedItems, code_MN: Tensor) -> Tensor:
    """Return the products of queries with what the codes of some items stand for, shape (B, N)."""
    query_BMW = query_BD.float().view(len(query_BD), len(code_MN), -1)
    product_MBK = torch.einsum("bmw,mkw->mbk", query_BMW, items.centroid_MKW.float())
    parts = []
    # A block of sums stays in the processor's cache while the codes go by.
    for code_MR in torch.split(code_MN, ROWS_AT_ONCE, dim=1):
        sum_BR = torch.zeros(len(query_BD), code_MR.shape[1])
        for product_BK, code_R in zip(product_MBK, code_MR, strict=True):
            sum_BR += product_BK.index_select(1, code_R.int())
        parts.append(sum_BR)
    return torch.cat(parts, dim=1)


def item_table(model: VectorModel) -> ItemTable:
    """Return the table that suits a model and this processor."""
    if isinstance(model, Weave) and model.is_coded:
        return CodedTable(model)
    exact_ID = model.item_vectors().contiguous()
    # On other processors torch multiplies bytes one by one, slower than anything.
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    multiplies_bytes = has_onednn and "AVX" in torch.backends.cpu.get_cpu_capability()
    is_rounded = multiplies_bytes and exact_ID.numel() >= MANY_VALUES
    return RoundedTable(model, exact_ID) if is_rounded else WholeTable(model, exact_ID)
