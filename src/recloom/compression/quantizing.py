"""A fitted `weave` -> the same with item vectors in codes of half a byte a coordinate.

Shapes: N items with a vector, D width, M pairs of coordinates, K centroids of each, W coordinates of a centroid.
"""

import warnings

import numpy as np
import torch
from torch.nn import functional

from recloom.errors import ConfigError
from recloom.models.coded_items import CodedItems
from recloom.models.item_vectors import ItemVectors
from recloom.models.weave import Weave
from recloom.recommender import Recommender

COORDINATES_PER_BYTE = 2
"""Of 4, NDCG@10 on Amazon Beauty lost 4 %, of 2 it lost half a percent."""
CENTROIDS = 256
MOST_TRAINING_VECTORS = 256 * CENTROIDS
"""Vectors that centroids are made from; of a larger catalogue, a sample."""
ROUNDS = 15


def quantize(recommender: Recommender) -> Recommender:
    """Return a recommender whose item vectors are stored as codes, into which its text was folded before.

    Source: product quantisation, Jegou, Douze and Schmid (2011), https://doi.org/10.1109/TPAMI.2010.57. Departure:
    what is cut into parts is a vector's direction, and its length is kept beside; cosines know no length.

    Raises:
        ConfigError: Item vectors are more than one table, mix in text that could not be folded, or are too narrow.
    """
    model = recommender.model
    assert isinstance(model, Weave)
    width, tables = model.config.embedding_dim, [tower.items for tower in model.eval()._towers]
    if model.config.fusion == "separate" or any(items.fusion == "gated" for items in tables):
        raise ConfigError(
            f"a weave with model.fusion = {model.config.fusion!r} has item vectors that are made anew from id and text"
            " each time, so they cannot be stored in codes; use --method int8"
        )
    if width % COORDINATES_PER_BYTE:
        raise ConfigError(f"model.embedding_dim is {width}; pq wants a multiple of {COORDINATES_PER_BYTE}")
    rows_I = torch.arange(model.num_items + 1)
    for tower, items in zip(model._towers, tables, strict=True):
        assert isinstance(items, ItemVectors)
        with torch.no_grad():
            vectors_ID = items(rows_I)
            filled_N = vectors_ID.any(dim=1).nonzero().squeeze(1)
            coded = CodedItems(model.num_items, _centroids(vectors_ID[filled_N]), items)
            coded.put(filled_N, vectors_ID[filled_N])
        tower.items = coded
    return recommender


def _centroids(vectors_ND: torch.Tensor) -> torch.Tensor:
    """Return up to 256 centroids for each part of the vectors' directions, shape (M, K, W)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = np.random.default_rng(0).permutation(len(vectors_ND))[:MOST_TRAINING_VECTORS]
    direction_ND = functional.normalize(vectors_ND[np.sort(rows)], dim=1).numpy()
    parts = []
    for begin in range(0, direction_ND.shape[1], COORDINATES_PER_BYTE):
        part_NW = direction_ND[:, begin : begin + COORDINATES_PER_BYTE]
        count = min(CENTROIDS, len(np.unique(part_NW, axis=0)))
        with warnings.catch_warnings():
            # Vectors that differ by rounding share a centroid, and it takes fewer.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(count, init="random", n_init=1, max_iter=ROUNDS, random_state=0).fit(part_NW)
        # Where there are fewer centroids than a byte has numbers, the rest of the numbers repeat them.
        parts.append(np.resize(found.cluster_centers_, (CENTROIDS, COORDINATES_PER_BYTE)))
    return torch.from_numpy(np.stack(parts)).float()
