"""Recommend by a few tastes that people and items share: matrix factorisation.

Shapes: B histories, L steps, I catalogue (with the padding row), D width.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.errors import ConfigError, MissingExtraError
from recloom.models.classic.sparse import sets_of_items
from recloom.models.interface import CountedModel, ItemText, Span, TrainingData, VectorModel

RIDGE = 1e-3
"""Penalty on the map from histories to users of BPR, a share of the mean variance."""


@dataclass(frozen=True, kw_only=True)
class MFConfig:
    """Hyperparameters of `mf`: the [model] table of a run file."""

    algorithm: Literal["als", "bpr"] = "als"
    """Alternating least squares, or Bayesian personalised ranking by gradient steps."""
    factors: int = 64
    """Width D of users and items."""
    iterations: int | None = None
    """Passes over the data. Unset: 15 for als, 100 for bpr."""
    regularization: float = 0.01
    """Squared factors cost so much."""
    alpha: float = 10.0
    """als: how much surer one is of what somebody took than of what somebody did not."""
    learning_rate: float = 0.01
    """bpr: size of a gradient step."""
    max_length: int = 200
    """Interactions of the history that are read, the newest ones."""
    seed: int = 0
    """Decides the first factors."""

    def __post_init__(self) -> None:
        if self.algorithm not in ("als", "bpr"):
            raise ConfigError(f"model.algorithm is {self.algorithm!r}; choose als or bpr")
        for name in ("factors", "alpha", "learning_rate", "max_length"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to be positive")


class MF(CountedModel, VectorModel):
    """Users and items as vectors whose product says who takes what; `implicit` finds them.

    A history becomes a user without training. With als it is the step that the algorithm itself would take: the user
    that best explains the history while the items stay. With bpr it is the linear map that best predicts the users of
    the training data from the mean item of what they took.

    Source: Hu, Koren and Volinsky (2008), https://doi.org/10.1109/ICDM.2008.22; Rendle et al. (2009),
    https://arxiv.org/abs/1205.2618.
    """

    name = "mf"
    Config = MFConfig
    search_space = {
        "model.factors": Span(16, 256, log=True),
        "model.alpha": Span(1.0, 100.0, log=True),
        "model.regularization": Span(1e-3, 10.0, log=True),
        "model.iterations": Span(5, 40),
    }
    uses_text = False
    items_ID: Tensor
    to_user_DD: Tensor

    def __init__(self, config: MFConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        # BPR has one more coordinate: what an item is worth to everybody.
        width = config.factors + (config.algorithm == "bpr")
        self.register_buffer("items_ID", torch.zeros(self.num_items + 1, width))
        self.register_buffer("to_user_DD", torch.zeros(width, width))

    def count(self, data: TrainingData) -> None:
        taken = sparse.csr_matrix(sets_of_items(data), dtype=np.float32)
        with threadpool_limits(1, "blas"):  # implicit has threads of its own
            model = _factorizer(self.config)
            model.fit(taken, show_progress=False)
        self.items_ID = torch.from_numpy(model.item_factors.copy())
        if self.config.algorithm == "bpr":
            users_UD = torch.from_numpy(model.user_factors).double()
            mean_UD = torch.from_numpy(taken @ model.item_factors).double()
            size_U = torch.from_numpy(np.diff(taken.indptr))
            mean_UD = (mean_UD / size_U.clamp_min(1)[:, None])[size_U > 0]
            covariance_DD = mean_UD.T @ mean_UD
            ridge = RIDGE * covariance_DD.diagonal().mean()
            covariance_DD.diagonal().add_(ridge)
            self.to_user_DD = torch.linalg.solve(covariance_DD, mean_UD.T @ users_UD[size_U > 0]).float()

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return self.items_ID if rows_N is None else self.items_ID[rows_N]

    def queries(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        is_first_BL = _is_first(item_index_BL) & (item_index_BL > 0)
        had_BLD = self.items_ID[item_index_BL] * is_first_BL[..., None]
        if self.config.algorithm == "bpr":
            return had_BLD.sum(dim=1) / is_first_BL.sum(dim=1, keepdim=True) @ self.to_user_DD
        # Normal equations of one user: everything not taken counts 1, everything taken alpha.
        all_DD = self.items_ID.T @ self.items_ID
        all_DD = all_DD + self.config.regularization * torch.eye(len(all_DD)).to(all_DD)
        system_BDD = all_DD + (self.config.alpha - 1) * had_BLD.transpose(1, 2) @ had_BLD
        return torch.linalg.solve(system_BDD, self.config.alpha * had_BLD.sum(dim=1))


def _is_first(item_index_BL: Tensor) -> Tensor:
    """Return whether each item of a history occurs there for the first time, shape (B, L)."""
    same_BLL = item_index_BL[:, :, None] == item_index_BL[:, None, :]
    return ~torch.tril(same_BLL, diagonal=-1).any(dim=2)


def _factorizer(config: MFConfig):  # type: ignore[no-untyped-def]
    try:
        from implicit.als import AlternatingLeastSquares
        from implicit.bpr import BayesianPersonalizedRanking
    except ImportError:
        raise MissingExtraError("mf", "the model mf") from None
    shared = {
        "factors": config.factors,
        "regularization": config.regularization,
        "random_state": config.seed,
        "use_gpu": False,
    }
    if config.algorithm == "als":
        return AlternatingLeastSquares(alpha=config.alpha, iterations=config.iterations or 15, **shared)
    return BayesianPersonalizedRanking(
        learning_rate=config.learning_rate, iterations=config.iterations or 100, num_threads=1, **shared
    )
