"""Histories to rank for, several workers -> the same lists that one of them would make by itself.

Shapes: B histories, K cutoff.
"""

import numpy as np

from recloom.dataset import Histories
from recloom.models.interface import TrainedModel
from recloom.models.ranking import Ranker
from recloom.workers import Workers


def gathered_lists(
    model: TrainedModel, histories: Histories, k: int, include_seen: bool, workers: Workers
) -> np.ndarray:
    """Return the k best items of each history, shape (B, K), on every worker; all of them have to ask together.

    Where everybody holds all items, each ranks for some of the histories. Where items are dealt out, each ranks its own
    for all histories, and the best of the best are taken. Either way metrics see whole lists.
    """
    if model.own_items is None:
        lists = Ranker(model).rank(histories.rows(workers.share(np.arange(len(histories)))), k, include_seen)
        item_index_BK = np.empty((len(histories), k), dtype=lists.item_index_BK.dtype)
        for rank, part in enumerate(workers.gather(lists.item_index_BK)):
            item_index_BK[rank :: workers.size] = part
        return item_index_BK
    lists = Ranker(model).rank(histories, k, include_seen)
    found = workers.gather((lists.item_index_BK, lists.score_BK))
    items, scores = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    best_first = np.lexsort((items, -scores), axis=1)[:, :k]  # equal scores by item index, as everywhere
    return np.take_along_axis(items, best_first, axis=1)
