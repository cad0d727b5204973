"""Text embeddings -> features a small network learns from quickly: centred, decorrelated, fewer."""

import numpy as np
import torch
from torch import Tensor, nn

EXPONENT = 0.75
"""Of partial whitening: 0 leaves the variances of a catalogue's directions, 1 makes them all the same."""
LEAST_VARIANCE = 1e-8
"""Where no direction has more, texts do not differ, or there is one alone."""


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
        self.mean_E = embeddings_NE.mean(dim=0)
        direction_EF, variance_F = _principal((embeddings_NE - self.mean_E).double(), self.feature_dim)
        self.projection_EF = (direction_EF * variance_F.clamp_min(1e-12).rsqrt()).float()

    def begin_with(self, projection_EF: Tensor, embeddings_NE: Tensor) -> None:
        """Take over directions that were learned elsewhere, on catalogues that were evened out as this one is.

        Args:
            projection_EF: From embeddings to features.
            embeddings_NE: Of this catalogue, none of them all zero.
        """
        self.mean_E = embeddings_NE.mean(dim=0) if len(embeddings_NE) else self.mean_E
        _, matrix_FF = partial_whitening((embeddings_NE - self.mean_E) @ projection_EF)
        self.projection_EF = projection_EF @ matrix_FF

    def forward(self, embeddings_NE: Tensor) -> Tensor:
        """Return features of shape (N, F); all zero for an item without text."""
        has_text_N1 = embeddings_NE.abs().amax(dim=1, keepdim=True) > 0
        return ((embeddings_NE - self.mean_E) @ self.projection_EF) * has_text_N1


def partial_whitening(features_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of a catalogue's features, and the matrix that evens out what they are around it.

    What texts of one catalogue have in common, and along which directions they differ most, says little about which of
    them somebody takes, and is another thing in each catalogue. Without it all catalogues lie in the same space,
    so that what is learned in one is of use in the other. Directions are stretched where they are and not turned.

    Args:
        features_NF: Of items that have text.
    """
    mean_F = features_NF.mean(dim=0) if len(features_NF) else features_NF.new_zeros(features_NF.shape[1])
    direction_FF, variance_F = _principal((features_NF - mean_F).double(), features_NF.shape[1])
    if variance_F.max() < LEAST_VARIANCE:
        return mean_F, torch.eye(len(mean_F)).to(mean_F)
    matrix_FF = direction_FF * variance_F.clamp_min(1e-12) ** (-EXPONENT / 2) @ direction_FF.T
    return mean_F, matrix_FF.to(mean_F)


def _principal(centred_NE: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the strongest directions of embeddings and the variance along each, shapes (E, count) and (count,)."""
    covariance_EE = centred_NE.T @ centred_NE / max(1, len(centred_NE) - 1)
    # numpy's, because torch 2.13's solver now and then gives up on a covariance of a handful of items.
    found = np.linalg.eigh(covariance_EE.cpu().numpy())
    variance_E, direction_EE = (torch.from_numpy(values).to(covariance_EE) for values in found)
    variance_F, direction_EF = variance_E.flip(0)[:count], direction_EE.flip(1)[:, :count]
    # From few items the variances are guesses, and evening them out would make all items equally unlike: the
    # fewer items, the more each direction keeps its length (shrinkage towards the mean variance).
    trust = len(centred_NE) / (len(centred_NE) + count)
    return direction_EF, trust * variance_F + (1 - trust) * variance_F.mean()
