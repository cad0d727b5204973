"""What was taken together -> a first guess of item vectors, from which training goes on."""

import numpy as np
import torch
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
    pairs, weights = _pairs(data, seed)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    weights = np.concatenate([weights, weights])
    keys, inverse = np.unique(pairs[:, 0] * num_rows + pairs[:, 1], return_inverse=True)
    counts = np.bincount(inverse, weights, minlength=len(keys))
    rows, columns = keys // num_rows, keys % num_rows
    frequency = np.bincount(rows, counts, minlength=num_rows)
    smoothed = frequency**SMOOTHING
    expected = frequency[rows] * smoothed[columns] / max(smoothed.sum(), 1e-9)
    information = np.log(np.maximum(counts / np.maximum(expected, 1e-9), 1e-9))
    kept = information > 0
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows[kept], columns[kept]])),
        torch.from_numpy(information[kept]).float(),
        (num_rows, num_rows),
        check_invariants=True,
    ).coalesce()
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


def _pairs(data: TrainingData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of different items at most `REACH` interactions apart, and one over how far apart."""
    segments = data.segments
    if segments.num_interactions > MOST_INTERACTIONS:
        share = MOST_INTERACTIONS / segments.num_interactions
        chosen = np.random.default_rng(seed).random(len(segments.start)) < share
        segments = Segments(segments.start[chosen], segments.end[chosen])
    pairs, apart = neighbouring_pairs(data.dataset, segments, REACH)
    return pairs, 1 / apart
