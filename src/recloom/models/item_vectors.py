"""Item ids, item texts and pictures -> one vector an item, by one of several fusions.

Shapes: N items asked for, I catalogue (with the padding row), D width, E width of embeddings, F width of whitened
ones.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX
from recloom.models.dealt_table import DealtTable, Route, own_rows
from recloom.models.text_features import Whitening, partial_whitening
from recloom.workers import ALONE, Workers

Fusion = Literal["id", "text", "sum", "gated", "concat", "init"]


LARGE_CATALOGUE = 100_000
RIDGE = 0.1
"""Penalty on the first map from text to vectors, a share of the variance of a text feature."""


class OtherModality(nn.Module):
    """How something beside text, such as a picture, becomes part of an item's vector: whitened, then a linear map."""

    def __init__(self, vectors_IE: Tensor, feature_dim: int, width: int) -> None:
        super().__init__()
        self._vectors_IE = vectors_IE  # no buffer: stored beside the model, as text is
        self.whitening = Whitening(vectors_IE.shape[1], min(feature_dim, vectors_IE.shape[1]))
        self.to_vector = nn.Linear(self.whitening.feature_dim, width, bias=False)

    @property
    def embedding_dim(self) -> int:
        return len(self.whitening.mean_E)

    def fit(self, seen_I: Tensor) -> None:
        """Fit the whitening on the items of the training data that have one."""
        has_one_I = self._vectors_IE.abs().amax(dim=1) > 0
        self.whitening.fit(self._vectors_IE[seen_I.to(has_one_I.device) & has_one_I])

    def features(self, embedding_NE: Tensor) -> Tensor:
        """Return what is whitened, zero for an item without; shape (N, F)."""
        features_NF: Tensor = self.whitening(embedding_NE.to(self.whitening.mean_E))
        return features_NF

    def forward(self, embedding_NE: Tensor) -> Tensor:
        """Return the part of each vector, zero for an item without; shape (N, D)."""
        vectors_ND: Tensor = self.to_vector(self.features(embedding_NE))
        return vectors_ND


class ItemVectors(nn.Module):
    """One vector an item, woven from an id embedding and the item's text embedding.

    `id`      the id embedding alone
    `text`    a linear map of the whitened text embedding alone
    `sum`     both added
    `gated`   each coordinate a mixture of the two, in a share that both decide
    `concat`  half of the coordinates each
    `init`    the id embedding starts as a projection of the text and goes its own way

    The id part of an item without training interactions is zero in all of them, so that a new item is placed by its
    text alone, and `id_dropout` makes the network used to such items.

    What there is beside text (pictures, vectors of the user's own) is whitened and mapped likewise and added to what
    the text makes, wherever that stands above; zero for an item that lacks it. `modality_dropout` hides text and each
    of the others now and then in training, so that the network is used to items that lack one.
    """

    text_IF: Tensor
    others_IF: Tensor
    seen_I: Tensor

    def __init__(
        self,
        num_items: int,
        width: int,
        fusion: Fusion,
        text_IE: Tensor | None,
        text_dim: int,
        id_dropout: float,
        others: Sequence[Tensor] = (),
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fusion: Fusion = fusion if text_IE is not None else "id"
        self.id_dropout, self.modality_dropout = id_dropout, modality_dropout
        self.others = nn.ModuleList()
        self.catalogue_I: Tensor | None = None
        """Which of several catalogues each item is of, where the texts of each are evened out by themselves."""
        self._workers = ALONE
        self.register_buffer("seen_I", torch.zeros(num_items + 1, dtype=torch.bool))
        id_width = width - width // 2 if self.fusion == "concat" else width
        if self.fusion != "text":
            # A large table is updated in the rows that a step used, so that a step's cost does not grow with it.
            is_large = num_items > LARGE_CATALOGUE
            self.ids = nn.Embedding(num_items + 1, id_width, padding_idx=PADDING_INDEX, sparse=is_large)
            # With text, the text speaks first and ids learn what it cannot tell.
            nn.init.normal_(self.ids.weight, std=width**-0.5 if self.fusion == "id" else 0.02)
            with torch.no_grad():
                self.ids.weight[PADDING_INDEX] = 0
        if self.fusion != "id":
            assert text_IE is not None
            self._text_IE = text_IE  # no buffer: whoever stores the model stores the item text beside it
            self.whitening = Whitening(text_IE.shape[1], min(text_dim, text_IE.shape[1]))
            self.register_buffer("text_IF", torch.zeros(0, 0), persistent=False)
            text_width = width // 2 if self.fusion == "concat" else width
            self.from_text = nn.Linear(self.whitening.feature_dim, text_width, bias=False)
            self.others.extend(OtherModality(one_IE, text_dim, text_width) for one_IE in others)
            self.register_buffer("others_IF", torch.zeros(0, 0), persistent=False)
            if self.fusion == "init":
                self.from_text.requires_grad_(False)
                self.others.requires_grad_(False)
            if self.fusion == "gated":
                self.gate = nn.Linear(2 * width, width)
            self.register_load_state_dict_post_hook(_whiten_text)  # type: ignore[no-untyped-call]

    def prepare(self, seen_I: Tensor) -> None:
        """Fit the whitening on the items of the training data.

        Args:
            seen_I: Whether an item has training interactions.
        """
        self.seen_I = seen_I
        if self.fusion != "id":
            has_text_I = self._text_IE.abs().amax(dim=1) > 0
            self.whitening.fit(self._text_IE[seen_I.to(has_text_I.device) & has_text_I])
            for other in modalities(self.others):
                other.fit(seen_I)
            _whiten_text(self)

    @torch.no_grad()
    def resume(self, seen_I: Tensor) -> None:
        """Let items that have training interactions now have ids; they begin where their text places them."""
        if self.fusion not in ("text", "init"):
            self.ids.weight[seen_I & ~self.seen_I] = 0
        self.seen_I = self.seen_I | seen_I

    @torch.no_grad()
    def start_from(self, vectors_ID: Tensor) -> None:
        """Begin at given vectors: text at what best predicts them, ids at what text leaves open.

        Args:
            vectors_ID: One vector an item, zero for an item of which nothing is known; shape (I, D).
        """
        if self.fusion == "concat":
            self._map_to(vectors_ID[:, : self.from_text.out_features])
            self.ids.weight.copy_(vectors_ID[:, : self.ids.embedding_dim])
            return
        if self.fusion != "id":
            self._map_to(vectors_ID)
        if self.fusion in ("id", "gated"):
            self.ids.weight.copy_(vectors_ID)
        elif self.fusion == "sum":
            is_known_I1 = vectors_ID.abs().amax(dim=1, keepdim=True) > 0
            said_ID = _sum(self._said(torch.arange(len(vectors_ID)), None, dropout=0.0))
            self.ids.weight.copy_((vectors_ID - said_ID) * is_known_I1)

    @torch.no_grad()
    def begin_with(self, projection_EF: Tensor) -> None:
        """Begin where text alone places each item, along directions that were learned elsewhere.

        Texts are evened out over the whole catalogue: there may be no training data to do it by.
        """
        self.whitening.begin_with(projection_EF, self._text_IE[self._text_IE.abs().amax(dim=1) > 0])
        for other in modalities(self.others):
            nn.init.zeros_(other.to_vector.weight)
        if self.fusion != "text":
            nn.init.zeros_(self.ids.weight)
        _whiten_text(self)

    @torch.no_grad()
    def read(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        """Take other embeddings for some items: of text alone, or of text and of all else, side by side."""
        if self.fusion == "id":
            return
        text_NE, *others = parts_of(embedding_NE, self.whitening, self.others)
        self.text_IF[rows_N] = self.whitening(text_NE.to(self.whitening.mean_E))
        if others:
            self.others_IF[rows_N] = self._features(others)

    def embeddings(self, rows_N: Tensor) -> Tensor:
        """Return all embeddings of some items as they were given, side by side; shape (N, E)."""
        others = (other._vectors_IE[rows_N] for other in modalities(self.others))
        return torch.cat([self._text_IE[rows_N], *others], dim=1)

    def _features(self, others: Sequence[Tensor]) -> Tensor:
        """Return what is beside text, whitened, side by side; shape (N, F)."""
        pairs = zip(modalities(self.others), others, strict=True)
        return torch.cat([other.features(one_NE) for other, one_NE in pairs], dim=1)

    def _map_to(self, vectors_ID: Tensor) -> None:
        """Begin at the linear maps from features to vectors that have the least squared error together."""
        weight_DF = self._regression(vectors_ID)
        maps = [self.from_text, *(other.to_vector for other in modalities(self.others))]
        for one, part_DF in zip(maps, torch.split(weight_DF, [one.in_features for one in maps], dim=1), strict=True):
            one.weight.copy_(part_DF)

    def deal(self, workers: Workers) -> None:
        """Keep only this worker's rows of the tables, and look the others up where they are."""
        self._workers = workers
        if self.fusion != "text":
            self.ids = DealtTable(self.ids, workers)
        if self.fusion != "id":
            self.text_IF = own_rows(self.text_IF, workers)
            if self.others:
                self.others_IF = own_rows(self.others_IF, workers)

    def collect(self) -> None:
        """Put the whole tables back on the worker that leads; those of the others are of no further use."""
        workers, self._workers = self._workers, ALONE
        if self.fusion != "text" and isinstance(self.ids, DealtTable):
            self.ids = self.ids.collected() or self.ids
        if self.fusion != "id" and workers.is_lead:
            _whiten_text(self)

    @property
    def table_bytes(self) -> int:
        """What the rows of all items take while none of them is dealt out."""
        tables = [] if self.fusion == "text" else [self.ids.weight]
        if self.fusion != "id":
            tables += [self.text_IF, *([self.others_IF] if self.others else [])]
        return 4 * sum(table.numel() for table in tables)

    @property
    def is_dealt(self) -> bool:
        """Whether other rows than this worker's are elsewhere."""
        return self._workers.size > 1

    def own_rows(self) -> Tensor:
        """Return the items whose rows are here."""
        return own_rows(torch.arange(len(self.seen_I), device=self.seen_I.device), self._workers)

    def _regression(self, vectors_ID: Tensor) -> Tensor:
        """Return the linear map from all features to vectors with the least squared error, shape (D, F)."""
        features_IF = torch.cat([self.text_IF, self.others_IF], dim=1) if self.others else self.text_IF
        known_I = (vectors_ID.abs().amax(dim=1) > 0) & (features_IF.abs().amax(dim=1) > 0)
        text_NF, vectors_ND = features_IF[known_I].double(), vectors_ID[known_I].double()
        covariance_FF = text_NF.T @ text_NF + RIDGE * max(1, len(text_NF)) * torch.eye(text_NF.shape[1]).double()
        return torch.linalg.solve(covariance_FF, text_NF.T @ vectors_ND).T.float()

    def _said(self, rows_N: Tensor, route: Route | None, dropout: float) -> list[Tensor]:
        """Return what text, and what each other modality, makes of some items, hidden now and then; (N, D) each."""
        text_ND: Tensor = self.from_text(_rows_of(self.text_IF, rows_N, route))
        if not self.others:
            return [text_ND]
        others = modalities(self.others)
        features = torch.split(
            _rows_of(self.others_IF, rows_N, route), [other.to_vector.in_features for other in others], dim=1
        )
        parts = [text_ND, *(other.to_vector(one_NF) for other, one_NF in zip(others, features, strict=True))]
        if dropout > 0:
            kept_MN1 = torch.rand(len(parts), len(rows_N), 1, device=text_ND.device) >= dropout
            parts = [part_ND * kept_N1 for part_ND, kept_N1 in zip(parts, kept_MN1, strict=True)]
        return parts

    def forward(self, rows_N: Tensor) -> Tensor:
        """Return the vectors, not normalised, of some items; shape (N, D)."""
        id_ND, said = self.parts(rows_N)
        return _sum(said if id_ND is None else [id_ND, *said])

    def parts(self, rows_N: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        """Return what makes up the vectors of some items, shape (N, D) each.

        Returns:
            What the id adds, None where the fusion has none; and what the text and each other modality adds, nothing
            where the fusion has no text.
        """
        route = Route(rows_N, self._workers) if self.is_dealt else None
        modality_dropout = self.modality_dropout if self.training else 0.0
        if self.fusion == "text":
            return None, self._said(rows_N, route, modality_dropout)
        keep_N = self.seen_I[rows_N]
        if self.training and self.id_dropout > 0 and self.fusion != "id":
            keep_N = keep_N & (torch.rand(len(rows_N), device=rows_N.device) >= self.id_dropout)
        id_ND = self._id(rows_N, route) * keep_N[:, None]
        if self.fusion == "id":
            return id_ND, []
        said = self._said(rows_N, route, modality_dropout)
        if self.fusion == "concat":
            id_width, text_width = id_ND.shape[1], said[0].shape[1]
            return functional.pad(id_ND, (0, text_width)), [functional.pad(part, (id_width, 0)) for part in said]
        if self.fusion == "gated":
            share_ND = torch.sigmoid(self.gate(torch.cat([id_ND, _sum(said)], dim=1)))
            return share_ND * id_ND, [(1 - share_ND) * part_ND for part_ND in said]
        return id_ND, said

    def _id(self, rows_N: Tensor, route: Route | None) -> Tensor:
        return self.ids.look_up(route) if route is not None and isinstance(self.ids, DealtTable) else self.ids(rows_N)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total_ND = parts[0]
    for part_ND in parts[1:]:
        total_ND = total_ND + part_ND
    return total_ND


def _rows_of(table_IF: Tensor, rows_N: Tensor, route: Route | None) -> Tensor:
    return table_IF[rows_N] if route is None else route.fetch(table_IF)


def _whiten_text(items: ItemVectors, _: object = None) -> None:
    """Compute the features of every item once, after the whitening was fitted or loaded."""
    items.text_IF = items.whitening(own_rows(items._text_IE, items._workers).to(items.whitening.mean_E))
    if items.catalogue_I is not None:
        has_text_I = items.text_IF.abs().amax(dim=1) > 0
        catalogue_I = items.catalogue_I.to(has_text_I.device)
        for catalogue in torch.unique(catalogue_I[has_text_I]):
            rows_I = has_text_I & (catalogue_I == catalogue)
            mean_F, matrix_FF = partial_whitening(items.text_IF[rows_I])
            items.text_IF[rows_I] = (items.text_IF[rows_I] - mean_F) @ matrix_FF
    if items.others:
        items.others_IF = items._features(
            [own_rows(other._vectors_IE, items._workers) for other in modalities(items.others)]
        )


def modalities(others: nn.ModuleList) -> list[OtherModality]:
    """Return what a list of modules holds."""
    return [other for other in others if isinstance(other, OtherModality)]


def parts_of(embedding_NE: Tensor, whitening: Whitening, others: nn.ModuleList) -> Sequence[Tensor]:
    """Part embeddings that stand side by side, of text first; where they are of text alone, there is nothing else."""
    widths = [len(whitening.mean_E), *(other.embedding_dim for other in modalities(others))]
    return [embedding_NE] if embedding_NE.shape[1] == widths[0] else torch.split(embedding_NE, widths, dim=1)
