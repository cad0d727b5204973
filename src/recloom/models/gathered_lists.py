"""Histories to rank for, several workers -> the same lists that one of them would make by itself.

Shapes: B histories, K cutoff, R items whose rows are here.
"""

import numpy as np
import torch

from recloom.dataset import PADDING_INDEX, Histories
from recloom.models.interface import TrainedModel
from recloom.models.ranking import SCORES_AT_ONCE, Ranker, fixed_copy, top_k
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
    found = workers.gather(_lists_of_own(model, histories, k, include_seen, workers))
    items, scores = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    best_first = np.lexsort((items, -scores), axis=1)[:, :k]  # equal scores by item index, as everywhere
    return np.take_along_axis(items, best_first, axis=1)


def _lists_of_own(
    model: TrainedModel, histories: Histories, k: int, include_seen: bool, workers: Workers
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best of the items whose rows are here, as `Ranker` would, with their scores, shape (B, K) both."""
    fixed = fixed_copy(model)
    assert isinstance(fixed, TrainedModel)
    own_R = fixed.own_items
    assert own_R is not None
    column_I = torch.full((model.num_items + 1,), -1)
    column_I[own_R] = torch.arange(len(own_R))
    item_index_BK = np.full((len(histories), k), PADDING_INDEX)
    score_BK = np.full((len(histories), k), -np.inf, dtype=np.float32)
    # Queries are made by all workers together, so that all have to take the same histories at a time.
    rows_at_once = max(1, min(512, SCORES_AT_ONCE * workers.size // (model.num_items + 1)))
    by_length = np.argsort(histories.length_B, kind="stable")
    with torch.no_grad():
        score = fixed.scorer()
        for begin in range(0, len(histories), rows_at_once):
            rows = by_length[begin : begin + rows_at_once]
            batch = histories.rows(rows)
            score_BR = score(batch).float()
            score_BR[:, own_R == PADDING_INDEX] = -torch.inf
            if not include_seen:
                row_N, item_N = map(torch.from_numpy, batch.seen())
                column_N = column_I[item_N.long()]
                score_BR[row_N[column_N >= 0], column_N[column_N >= 0]] = -torch.inf
            columns, scores = top_k(score_BR, min(k, len(own_R)))
            items = np.where(scores > -np.inf, own_R.numpy()[columns], PADDING_INDEX)
            item_index_BK[rows, : items.shape[1]], score_BK[rows, : items.shape[1]] = items, scores
    return item_index_BK, score_BK
