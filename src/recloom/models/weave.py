"""The default model: item ids and item texts woven into one vector, read in order by a small recurrent network.

Shapes: B histories, L steps, N targets, C candidates, I catalogue (with the padding row), D width, E width of
text embeddings, F width of whitened ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX, CategoryColumn, Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.interface import ItemText, TrainedModel, TrainingData, usual_length
from recloom.models.text_features import Whitening

NETWORKS: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
GAP_BUCKETS = 32
"""Time gaps are told apart by their power of two, in seconds: 2^31 s is 68 years."""
PRIOR_DAYS = (7.0, 30.0, np.inf)
"""Windows before the end of training in which popularity is counted, in days."""
PRIOR_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""How much the log of a count may add to a score; validation chooses, nothing included."""
MOST_CONTEXT_VALUES = 1_000
"""A column with more different words than this is an id of something (a session, a request), not context."""


@dataclass(frozen=True, kw_only=True)
class WeaveConfig:
    """Hyperparameters of `weave`: the [model] table of a run file."""

    network: Literal["gru", "lstm", "rnn"] = "gru"
    """What reads the sequence."""
    embedding_dim: int = 64
    """Width D of item vectors and queries."""
    hidden_dim: int = 128
    """Width of the network's state."""
    num_layers: int = 1
    """Layers of the network."""
    text_dim: int = 256
    """Directions of the text embedding that are used, the strongest first. 0: ids alone."""
    max_length: int = 50
    """Interactions of a history that are read, the newest ones."""
    dropout: float = 0.3
    """Share of input and output values set to zero in training."""
    id_dropout: float = 0.1
    """Share of items that are known by their text alone in a training step, so that new items are scored well."""
    temperature: float = 0.07
    """What cosines are divided by: lower concentrates on the hardest negatives."""
    num_negatives: int = 1_024
    """Items that all targets of a batch are told apart from. 0, or more than the catalogue has: every item."""

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ConfigError(f"model.network is {self.network!r}; choose {', '.join(NETWORKS)}")
        for name in ("embedding_dim", "hidden_dim", "num_layers", "max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to be at least 1")
        for name in ("dropout", "id_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to lie in [0, 1)")
        if self.temperature <= 0:
            raise ConfigError(f"model.temperature is {self.temperature}; it has to be positive")


class Weave(TrainedModel):
    """A recurrent network over item vectors; cosine scores over a temperature; softmax against shared negatives.

    An item's vector is the sum of an id embedding and a linear map of its whitened text embedding. The id part
    of an item without training interactions is zero, so a new item is placed by its text alone, and
    `id_dropout` makes the network used to that. An interaction adds what it was (view, purchase, ...), how
    long after the one before it came, and its context. Popularity, mostly recent popularity, is added to the score
    as far as validation wants it.

    Departures from GRU4Rec (Hidasi et al. 2016, https://arxiv.org/abs/1511.06939): input and output share item
    vectors, scores are cosines, negatives are shared by the whole batch and drawn uniformly from the items seen in
    training, with the log-Q correction of Bengio and Senecal (2008), https://doi.org/10.1109/TNN.2007.912312.
    """

    name = "weave"
    Config = WeaveConfig
    text_IE: Tensor
    seen_I: Tensor
    prior_IW: Tensor
    prior_weight_W: Tensor

    def __init__(self, config: WeaveConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        num_items, width = len(dataset.items), config.embedding_dim
        self.ids = nn.Embedding(num_items + 1, width, padding_idx=PADDING_INDEX)
        self.register_buffer("seen_I", torch.zeros(num_items + 1, dtype=torch.bool))
        self.register_buffer("prior_IW", torch.zeros(num_items + 1, len(PRIOR_DAYS)))
        self.register_buffer("prior_weight_W", torch.zeros(len(PRIOR_DAYS)))
        if text is not None and config.text_dim > 0:
            embedding_dim = text.vectors_IE.shape[1]
            feature_dim = min(config.text_dim, embedding_dim)
            self.register_buffer("text_IE", torch.from_numpy(text.vectors_IE), persistent=False)
            self.whitening: Whitening | None = Whitening(embedding_dim, feature_dim)
            self.text_to_item = nn.Linear(feature_dim, width, bias=False)
            nn.init.normal_(self.ids.weight, std=0.02)  # the text speaks first, ids learn what it cannot tell
        else:
            self.whitening = None
            nn.init.normal_(self.ids.weight, std=width**-0.5)
        with torch.no_grad():
            self.ids.weight[PADDING_INDEX] = 0
        self.behaviors = nn.Embedding(len(dataset.behavior.vocabulary) + 1, width, padding_idx=PADDING_INDEX)
        self.gaps = nn.Embedding(GAP_BUCKETS, width)
        self.context_words = nn.ModuleDict()
        self.context_numbers = nn.ParameterDict()
        for column_name, column in dataset.context.items():
            key = column_name.replace(".", "_")  # torch keeps "." for nested modules
            if not isinstance(column, CategoryColumn):
                self.context_numbers[key] = nn.Parameter(torch.zeros(width))
            elif len(column.vocabulary) <= MOST_CONTEXT_VALUES:
                self.context_words[key] = nn.Embedding(len(column.vocabulary) + 1, width, padding_idx=PADDING_INDEX)
        for embedding in (self.behaviors, self.gaps, *self.context_words.values()):
            nn.init.zeros_(
                cast(nn.Embedding, embedding).weight
            )  # an item is what it is until its circumstances prove to matter
        self.dropout = nn.Dropout(config.dropout)
        self.network = NETWORKS[config.network](width, config.hidden_dim, config.num_layers, batch_first=True)
        self.to_query = nn.Linear(config.hidden_dim, width)

    @classmethod
    def defaults_for(cls, dataset: Dataset) -> dict[str, Any]:
        return {"max_length": usual_length(dataset)}

    def prepare(self, data: TrainingData) -> None:
        self.seen_I = torch.from_numpy(data.item_counts() > 0)
        counts_WI = [data.item_counts(days) for days in PRIOR_DAYS]
        self.prior_IW = torch.from_numpy(np.log1p(np.stack(counts_WI, axis=1))).float()
        if self.whitening is not None:
            has_text_I = self.text_IE.abs().amax(dim=1) > 0
            self.whitening.fit(self.text_IE[self.seen_I & has_text_I])

    def tune(self, validate: Callable[[], float]) -> None:
        choices = [torch.zeros(len(PRIOR_DAYS))]
        choices += [weight * unit_W for unit_W in torch.eye(len(PRIOR_DAYS)) for weight in PRIOR_WEIGHTS]
        scores = []
        for self.prior_weight_W in choices:
            scores.append(validate())
        self.prior_weight_W = choices[int(np.argmax(scores))]

    def tune_like(self, other: TrainedModel) -> None:
        assert isinstance(other, Weave)
        self.prior_weight_W = other.prior_weight_W.clone()

    def item_vectors(self) -> Tensor:
        # The prior is one more coordinate, against which every query holds 1: still one inner product.
        prior_I1 = (self.prior_IW @ self.prior_weight_W)[:, None]
        return torch.cat([self.similarity_vectors() / self.config.temperature, prior_I1], dim=1)

    def similarity_vectors(self) -> Tensor:
        return functional.normalize(self._items(torch.arange(len(self.seen_I))), dim=1, eps=1e-6)

    def queries(self, histories: Histories) -> Tensor:
        hidden_BLD = self._read(histories)
        last_B = torch.from_numpy(histories.length_B) - 1
        query_BD = self._normalized_queries(hidden_BLD[torch.arange(len(last_B)), last_B])
        return torch.cat([query_BD, torch.ones_like(query_BD[:, :1])], dim=1)

    def loss(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        hidden_BLD = self._read(histories)[:, :-1]
        is_target_BL = item_index_BL[:, 1:] != PADDING_INDEX
        query_ND = self._normalized_queries(self.dropout(hidden_BLD[is_target_BL]))
        target_N = item_index_BL[:, 1:][is_target_BL]
        candidate_C, log_correction = self._negatives()
        # Target and negatives may be the same item, so both go through one table of distinct rows.
        rows_C, position = torch.unique(torch.cat([target_N, candidate_C]), return_inverse=True)
        vectors_CD = functional.normalize(self._items(rows_C), dim=1, eps=1e-6)
        target_position_N, candidate_position_C = position[: len(target_N)], position[len(target_N) :]
        target_score_N = (query_ND * vectors_CD[target_position_N]).sum(dim=1) / self.config.temperature
        score_NC = query_ND @ vectors_CD[candidate_position_C].T / self.config.temperature + log_correction
        score_NC = score_NC.masked_fill(target_N[:, None] == candidate_C, -torch.inf)
        return (torch.logsumexp(torch.cat([target_score_N[:, None], score_NC], dim=1), dim=1) - target_score_N).mean()

    def _negatives(self) -> tuple[Tensor, float]:
        """Draw the items that all targets of a batch are told apart from.

        Returns:
            Item indices, and the log of how many items each stands for: the correction that makes the sum over
            the sample estimate the sum over all.
        """
        # An item never seen in training is no negative: it would only ever be pushed away, and lose its text's place.
        seen_C = self.seen_I.nonzero().squeeze(1)
        wanted = self.config.num_negatives
        if not 0 < wanted < len(seen_C):
            return seen_C, 0.0
        return seen_C[torch.randint(len(seen_C), (wanted,))], float(np.log(len(seen_C) / wanted))

    def _items(self, rows_N: Tensor) -> Tensor:
        """Return the vectors, not normalised, of some items; shape (N, D)."""
        keep_N = self.seen_I[rows_N]
        if self.training and self.config.id_dropout > 0 and self.whitening is not None:
            keep_N = keep_N & (torch.rand(len(rows_N)) >= self.config.id_dropout)
        vectors_ND = self.ids(rows_N) * keep_N[:, None]
        if self.whitening is None:
            return vectors_ND
        return vectors_ND + self.text_to_item(self.whitening(self.text_IE[rows_N]))

    def _read(self, histories: Histories) -> Tensor:
        """Run the network over the histories; shape (B, L, hidden). Padding comes last, so it reaches no step."""
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        rows_N, position_BL = torch.unique(item_index_BL, return_inverse=True)
        event_BLD = self._items(rows_N)[position_BL] + self.gaps(self._gap_buckets(histories))
        event_BLD = event_BLD + self.behaviors(torch.from_numpy(histories.behavior_index_BL).long())
        for column_name, values_BL in histories.context_BL.items():
            key = column_name.replace(".", "_")
            if key in self.context_words:
                event_BLD = event_BLD + self.context_words[key](torch.from_numpy(values_BL).long())
            elif key in self.context_numbers:
                number_BL1 = torch.from_numpy(values_BL)[..., None].to(event_BLD)
                event_BLD = event_BLD + number_BL1 * self.context_numbers[key]
        hidden_BLD, _ = self.network(self.dropout(event_BLD))
        return hidden_BLD

    def _gap_buckets(self, histories: Histories) -> Tensor:
        """Number the time since the interaction before: 0 for none or unknown, then by powers of two."""
        gap_BL = np.zeros(histories.timestamp_BL.shape, dtype=np.int64)
        gap_BL[:, 1:] = np.maximum(np.diff(histories.timestamp_BL, axis=1), 0)
        buckets_BL = np.ceil(np.log2(gap_BL + 1)).astype(np.int64)
        return torch.from_numpy(np.minimum(buckets_BL, GAP_BUCKETS - 1))

    def _normalized_queries(self, hidden_ND: Tensor) -> Tensor:
        return functional.normalize(self.to_query(hidden_ND), dim=1, eps=1e-6)
