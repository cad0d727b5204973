"""Text embeddings -> features a small network learns from quickly: centred, decorrelated, fewer."""

import numpy as np
import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    """Centre embeddings, turn them onto their principal directions and scale each to unit variance.

    Language models put their embeddings in a narrow cone with a few strong directions; a linear layer over
    them learns slowly until these are evened out. The transform is fitted on the items of the training
    data and stored, so that an item added later goes through the same one.

    Source: Su et al. (2021), "Whitening Sentence Representations", https://arxiv.org/abs/2103.15316
    """

    mean_E: Tensor
    projection_EF: Tensor

    def __init__(self, embedding_dim: int, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.register_buffer("mean_E", torch.zeros(embedding_dim))
        self.register_buffer("projection_EF", torch.zeros(embedding_dim, feature_dim))

    def fit(self, embeddings_NE: Tensor) -> None:
        """Learn the transform from embeddings, of which none is all zero; from none at all, features are zero."""
        if len(embeddings_NE) == 0:
            return
        feature_dim = self.feature_dim
        self.mean_E = embeddings_NE.mean(dim=0)
        centred_NE = (embeddings_NE - self.mean_E).double()
        covariance_EE = centred_NE.T @ centred_NE / max(1, len(centred_NE) - 1)
        # numpy's, because torch 2.13's solver now and then gives up on a covariance of a handful of items.
        variance_E, direction_EE = map(torch.from_numpy, np.linalg.eigh(covariance_EE.numpy()))
        variance_F, direction_EF = variance_E.flip(0)[:feature_dim], direction_EE.flip(1)[:, :feature_dim]
        # From few items the variances are guesses, and evening them out would make all items equally unlike: the
        # fewer items, the more each direction keeps its length (shrinkage towards the mean variance).
        trust = len(centred_NE) / (len(centred_NE) + feature_dim)
        variance_F = trust * variance_F + (1 - trust) * variance_F.mean()
        self.projection_EF = (direction_EF * variance_F.clamp_min(1e-12).rsqrt()).float()

    def begin_with(self, projection_EF: Tensor, embeddings_NE: Tensor) -> None:
        """Take over directions that were learned elsewhere, and centre on these embeddings, none of them all zero.

        What texts of one catalogue have in common differs from that of another, and says nothing about which of them
        somebody takes; centred on its own mean, each catalogue lies around the same point.
        """
        self.projection_EF = projection_EF.clone()
        if len(embeddings_NE):
            self.mean_E = embeddings_NE.mean(dim=0)

    def forward(self, embeddings_NE: Tensor) -> Tensor:
        """Return features of shape (N, F); all zero for an item without text."""
        has_text_N1 = embeddings_NE.abs().amax(dim=1, keepdim=True) > 0
        return ((embeddings_NE - self.mean_E) @ self.projection_EF) * has_text_N1
