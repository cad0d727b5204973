"""Item vectors as search wants them: fast products in single precision, exact ones in double.

Shapes: B queries, N items asked for, I catalogue (with the padding row and spare rows), D width, P further coordinates
of popularity, T towers, M pairs of coordinates, K centroids of each.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from recloom.models import VectorModel
from recloom.models.coded_items import ROWS_AT_ONCE, CodedItems
from recloom.models.weave import Weave


class ItemTable(ABC):
    """The item vectors of a model in double precision whose weights are fixed."""

    size: int
    """Rows, I."""
    longest: float
    """Length of the longest vector."""

    @abstractmethod
    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> Tensor:
        """Return products in single precision with some items, or with all; shape (B, N)."""

    @abstractmethod
    def exact(self, rows_N: Tensor) -> Tensor:
        """Return vectors in double precision, shape (N, D)."""

    @abstractmethod
    def whole(self) -> Tensor:
        """Return all vectors in single precision, shape (I, D)."""

    @abstractmethod
    def read(self, rows_N: Tensor) -> None:
        """Take over what has become of some items in the model."""


class WholeTable(ItemTable):
    """Every vector, in both precisions."""

    def __init__(self, model: VectorModel) -> None:
        self._model = model
        self._exact_ID = model.item_vectors().contiguous()
        self._fast_ID = self._exact_ID.float()
        self.size = len(self._exact_ID)
        self.longest = float(self._exact_ID.norm(dim=1).max())

    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> Tensor:
        return query_BD.float() @ (self._fast_ID if rows_N is None else self._fast_ID[rows_N]).T

    def exact(self, rows_N: Tensor) -> Tensor:
        return self._exact_ID[rows_N]

    def whole(self) -> Tensor:
        return self._fast_ID

    def read(self, rows_N: Tensor) -> None:
        vectors_ND = self._model.item_vectors(rows_N)
        self._exact_ID[rows_N], self._fast_ID[rows_N] = vectors_ND, vectors_ND.float()
        self.longest = max(self.longest, float(vectors_ND.norm(dim=1).max()))


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

    def rough(self, query_BD: Tensor, rows_N: Tensor | None = None) -> Tensor:
        every: Tensor | slice = slice(None) if rows_N is None else rows_N
        width = self._model.config.embedding_dim
        product_BN = query_BD[:, width * len(self._tables) :].float() @ self._popularity_IP[every].T
        for number, (items, code_MI) in enumerate(zip(self._tables, self._codes, strict=True)):
            own_BD = query_BD[:, width * number : width * (number + 1)]
            code_MN = code_MI if rows_N is None else code_MI[:, rows_N]
            product_BN += _looked_up(own_BD, items, code_MN) * self._scale_TI[number, every]
        return product_BN

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
    """Return the table that suits a model."""
    return CodedTable(model) if isinstance(model, Weave) and model.is_coded else WholeTable(model)
