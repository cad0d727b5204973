"""Recommend by a neural network that is shown a person and an item: neural collaborative filtering.

Shapes: B histories, N positives, S samples, P pairs of a user and an item, I catalogue (with the padding row), D width,
H hidden width.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX, Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.interface import ItemText, Scorer, Span, TrainedModel, TrainingData


@dataclass(frozen=True, kw_only=True)
class NCFConfig:
    """Hyperparameters of `ncf`: the [model] table of a run file."""

    architecture: Literal["gmf", "mlp", "neumf"] = "neumf"
    """A weighted product of person and item, a network over both, or the two together."""
    embedding_dim: int = 32
    """Width D of people and items, in each of the two parts."""
    num_negatives: int = 4
    """Items that were not taken, for each that was."""
    dropout: float = 0.0
    """Share of values set to zero in training."""

    def __post_init__(self) -> None:
        if self.architecture not in ("gmf", "mlp", "neumf"):
            raise ConfigError(f"model.architecture is {self.architecture!r}; choose gmf, mlp or neumf")
        if self.embedding_dim < 4 or self.num_negatives < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                "model.embedding_dim has to be at least 4, model.num_negatives at least 1 and model.dropout in [0, 1)"
            )


class NCF(TrainedModel):
    """How likely somebody takes something, learned from what was taken against what was not.

    It knows the people it was trained on, by who they are; of others it can say nothing, and they get the popular
    list. Order means nothing to it.

    Source: He et al. (2017), "Neural Collaborative Filtering", https://arxiv.org/abs/1708.05031.
    """

    name = "ncf"
    Config = NCFConfig
    search_space = {
        "model.architecture": ["gmf", "mlp", "neumf"],
        "model.embedding_dim": [16, 32, 64],
        "model.num_negatives": Span(2, 10),
        "model.dropout": Span(0.0, 0.5),
        "training.learning_rate": Span(3e-4, 1e-2, log=True),
    }
    uses_text = False
    seen_I: Tensor
    known_U: Tensor

    def __init__(self, config: NCFConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = 200
        num_users, width = len(dataset.user_offsets) - 1, config.embedding_dim
        self.register_buffer("seen_I", torch.zeros(self.num_items + 1, dtype=torch.bool))
        self.register_buffer("known_U", torch.zeros(num_users, dtype=torch.bool))
        output_dim = 0
        if config.architecture != "mlp":
            self.product_users, self.product_items = _table(num_users, width), _table(self.num_items + 1, width)
            output_dim += width
        if config.architecture != "gmf":
            self.users, self.items = _table(num_users, width), _table(self.num_items + 1, width)
            # The first layer reads person and item; its two halves are applied apart, so that each is computed once.
            self.from_user, self.from_item = nn.Linear(width, width), nn.Linear(width, width, bias=False)
            self.tower = nn.Sequential(
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(width, width // 2),
                nn.ReLU(),
                nn.Linear(width // 2, width // 4),
                nn.ReLU(),
            )
            output_dim += width // 4
        self.output = nn.Linear(output_dim, 1)

    def prepare(self, data: TrainingData) -> None:
        self.seen_I = torch.from_numpy(data.item_counts() > 0)
        self.known_U = torch.from_numpy(data.segments.end - data.segments.start > 1)  # windows leave single ones out
        self._seen_C = self.seen_I.nonzero().squeeze(1)
        segments = data.segments
        users = np.repeat(np.arange(len(segments.start)), segments.end - segments.start)
        pairs = self._pair(users, data.dataset.item_index[segments.positions()].astype(np.int64))
        self._taken_P = torch.from_numpy(np.unique(pairs))

    def can_answer(self, histories: Histories) -> np.ndarray:
        return super().can_answer(histories) & self.known_U.numpy()[histories.user_index_B]

    def loss(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        rows_N, steps_N = (item_index_BL != PADDING_INDEX).nonzero(as_tuple=True)
        user_N = torch.from_numpy(histories.user_index_B)[rows_N]
        taken_N = item_index_BL[rows_N, steps_N]
        others = user_N.repeat(self.config.num_negatives)
        drawn = self._seen_C[torch.randint(len(self._seen_C), (len(others),))]
        is_negative = ~self._was_taken(others, drawn)
        item_S = torch.cat([taken_N, drawn[is_negative]])
        user_S = torch.cat([user_N, others[is_negative]])
        score_S = self._score(user_S, item_S)
        wanted_S = torch.zeros(len(item_S))
        wanted_S[: len(taken_N)] = 1
        return functional.binary_cross_entropy_with_logits(score_S, wanted_S)

    def _pair(self, user: Any, item: Any) -> Any:
        """Return one number for a user and an item, arrays or tensors of them."""
        return user * (self.num_items + 1) + item

    def _was_taken(self, user_N: Tensor, item_N: Tensor) -> Tensor:
        pair_N = self._pair(user_N, item_N)
        place_N = torch.searchsorted(self._taken_P, pair_N).clamp_max(len(self._taken_P) - 1)
        return self._taken_P[place_N] == pair_N

    def _score(self, user_S: Tensor, item_S: Tensor) -> Tensor:
        parts = []
        if self.config.architecture != "mlp":
            parts.append(self.product_users(user_S) * self.product_items(item_S))
        if self.config.architecture != "gmf":
            both = self.from_user(self.users(user_S)) + self.from_item(self.items(item_S))
            parts.append(self.tower(both))
        return self.output(torch.cat(parts, dim=-1)).squeeze(-1)

    def scorer(self) -> Scorer:
        unseen_I = ~self.seen_I

        def score(histories: Histories) -> Tensor:
            user_B = torch.from_numpy(histories.user_index_B)
            items_I = torch.arange(self.num_items + 1)
            score_BI = torch.stack([self._score(user.expand(len(items_I)), items_I) for user in user_B])
            # An item nobody took in training has learned nothing.
            return score_BI.masked_fill(unseen_I, torch.finfo(torch.float32).min)

        return score

    def similarity(self, item_index: int) -> Tensor:
        tables = [self.product_items] if self.config.architecture != "mlp" else [self.items]
        unit_ID = functional.normalize(torch.cat([table.weight for table in tables], dim=1), dim=1)
        return unit_ID @ unit_ID[item_index]


def _table(num_rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(num_rows, width)
    nn.init.normal_(table.weight, std=0.01)
    return table
