"""Item vectors in a few bytes each: every two coordinates are the number of the nearest of 256 pairs.

Shapes: N items asked for, I catalogue (with the padding row), D width, M pairs of coordinates, K centroids of each,
W coordinates of a centroid, E width of text embeddings.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX
from recloom.models.item_vectors import ItemVectors, modalities, parts_of

ROWS_AT_ONCE = 16_384
"""Vectors that are decoded together."""
DISTANCES_AT_ONCE = 16_000_000
"""Most distances to centroids that are held together when vectors are encoded, 64 MB."""


class CodedItems(nn.Module):
    """Product-quantised item vectors, in the place of `ItemVectors` of a model that only answers.

    A vector is its length times a direction, and the direction is cut into M parts of W coordinates; a byte for each
    part tells which of up to 256 centroids stands for it. Vectors are decoded when they are asked for. An item that
    comes later is placed by its text and coded with the same centroids; one that is known keeps its vector, whatever
    becomes of its text.

    Source: Jegou, Douze and Schmid (2011), https://doi.org/10.1109/TPAMI.2010.57.
    """

    code_IM: Tensor
    length_I: Tensor
    centroid_MKW: Tensor

    def __init__(self, num_items: int, centroid_MKW: Tensor, source: ItemVectors) -> None:
        """Make a table of zero vectors.

        Args:
            num_items: Without the padding row.
            centroid_MKW: What the codes stand for.
            source: Says how text is placed.
        """
        super().__init__()
        self.register_buffer("code_IM", torch.zeros(num_items + 1, len(centroid_MKW), dtype=torch.uint8))
        self.register_buffer("length_I", torch.zeros(num_items + 1))
        self.register_buffer("centroid_MKW", centroid_MKW)
        self.reads_text = source.fusion != "id"
        if self.reads_text:
            self.whitening, self.from_text, self.others = source.whitening, source.from_text, source.others

    def forward(self, rows_N: Tensor) -> Tensor:
        """Return the vectors, not normalised, of some items; shape (N, D)."""
        return self.directions(rows_N) * self.length_I[rows_N][:, None]

    def directions(self, rows_N: Tensor) -> Tensor:
        """Return what the codes of some items stand for, shape (N, D)."""
        num_parts, num_centroids, _ = self.centroid_MKW.shape
        first_M = torch.arange(num_parts) * num_centroids
        place_NM = self.code_IM[rows_N].int() + first_M.int()
        return functional.embedding(place_NM, self.centroid_MKW.flatten(0, 1)).flatten(1)

    @torch.no_grad()
    def put(self, rows_N: Tensor, vectors_ND: Tensor) -> None:
        """Take vectors for some items: as near to them as the centroids get."""
        length_N = vectors_ND.norm(dim=1)
        num_parts, num_centroids, part_width = self.centroid_MKW.shape
        direction_NMW = functional.normalize(vectors_ND, dim=1).view(-1, num_parts, part_width)
        rows_at_once = max(1, DISTANCES_AT_ONCE // (num_parts * num_centroids))
        for begin in range(0, len(rows_N), rows_at_once):
            some = slice(begin, begin + rows_at_once)
            # Not by way of a matrix product, whose rounding would depend on which vectors are encoded together.
            distance_MNK = torch.cdist(
                direction_NMW[some].transpose(0, 1),
                self.centroid_MKW.to(vectors_ND),
                compute_mode="donot_use_mm_for_euclid_dist",
            )
            self.code_IM[rows_N[some]] = distance_MNK.argmin(dim=2).T.to(torch.uint8)
        self.length_I[rows_N] = length_N.to(self.length_I)
        self.length_I[PADDING_INDEX] = 0

    @torch.no_grad()
    def read(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        """Place items that have no vector yet by their embeddings."""
        if self.reads_text:
            is_new_N = self.length_I[rows_N] == 0
            text_NE, *others = parts_of(embedding_NE[is_new_N].to(self.whitening.mean_E), self.whitening, self.others)
            vectors_ND = self.from_text(self.whitening(text_NE))
            for other, one_NE in zip(modalities(self.others), others, strict=False):  # there may be those of text alone
                vectors_ND = vectors_ND + other(one_NE)
            self.put(rows_N[is_new_N], vectors_ND)

    def resume(self, seen_I: Tensor) -> None:
        """Leave vectors as they are: an item without one has none to learn."""
