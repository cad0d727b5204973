"""What was taken together -> a first guess of item vectors, from which training goes on."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recloom.dataset import Segments, neighbouring_pairs
from recloom.models.interface import TrainingData

REACH = 5
"""Interactions before and after that count as together, the nearer the more."""
SMOOTHING = 0.75
"""Power of a neighbour's frequency, so that rare neighbours do not count for too much."""
MOST_INTERACTIONS = 2_000_000
"""Interactions that are looked at, those of users chosen at random: more change a first guess little."""
LARGE_CATALOGUE = 200_000
"""From so many items on, the factorisation keeps fewer spare directions, to save memory."""


def cooccurrence_vectors(data: TrainingData, width: int, seed: int = 0) -> Tensor:
    """Factor the positive pointwise mutual information of items that follow each other closely.

    Returns:
        One vector an item, shape (items + 1, width), with entries of 0.5 on average over the items that were taken
        beside another, and zero for the others.

    Source: Levy and Goldberg (2014), "Neural Word Embedding as Implicit Matrix Factorization",
    https://papers.nips.cc/paper/5477; smoothing from Levy, Goldberg and Dagan (2015).
    """
    num_rows = len(data.dataset.items) + 1
    counts = _counts(data, seed)
    rows, columns, information = np.repeat(np.arange(num_rows), np.diff(counts.indptr)), counts.indices, counts.data
    del counts
    # There may be MOST_INTERACTIONS x REACH x 2 of them, so this goes in place, and what is done with is let go.
    frequency = np.bincount(rows, information, minlength=num_rows)
    smoothed = frequency**SMOOTHING
    information /= frequency[rows]
    information /= smoothed[columns]
    information *= smoothed.sum()
    np.log(information, out=information)
    kept = information > 0
    place_2N = np.stack([rows[kept], columns[kept]])
    del rows, columns
    value_N = information[kept].astype(np.float32)
    del information, kept
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(place_2N),
        torch.from_numpy(value_N),
        (num_rows, num_rows),
        check_invariants=True,
        is_coalesced=True,
    )
    spare = width if num_rows < LARGE_CATALOGUE else 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        basis, _, _ = torch.svd_lowrank(matrix, q=min(width + spare, num_rows), niter=4)
    # Only directions in which items that go together are alike: those of positive eigenvalues.
    projected = (basis.T @ (matrix @ basis)).double()
    # Smoothing treats an item and its neighbour differently; the mean of both ways is symmetric.
    strength, direction = torch.linalg.eigh((projected + projected.T) / 2)
    strength, direction = strength.flip(0)[:width].clamp_min(0), direction.flip(1)[:, :width]
    vectors = torch.zeros(num_rows, width)
    vectors[:, : len(strength)] = basis @ (direction * strength.sqrt()).float()
    size = vectors.square().mean(dim=1).sqrt()
    is_known = size > 1e-6
    if not is_known.any():
        return vectors
    return vectors * is_known[:, None] * (0.5 / size[is_known].mean())


def _counts(data: TrainingData, seed: int) -> sparse.csr_array:
    """Return how often two different items were at most `REACH` interactions apart, each time over how far apart."""
    segments, num_rows = data.segments, len(data.dataset.items) + 1
    if segments.num_interactions > MOST_INTERACTIONS:
        share = MOST_INTERACTIONS / segments.num_interactions
        chosen = np.random.default_rng(seed).random(len(segments.start)) < share
        segments = Segments(segments.start[chosen], segments.end[chosen])
    counts = sparse.csr_array((num_rows, num_rows))
    for apart, pairs in enumerate(neighbouring_pairs(data.dataset, segments, REACH), start=1):
        counts += sparse.csr_array((np.full(len(pairs), 1 / apart), pairs.T), (num_rows, num_rows))
    counts = (counts + counts.T).tocsr()
    counts.sort_indices()
    return counts
