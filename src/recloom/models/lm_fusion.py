"""The algorithm as the articles of the field write it: a language model reads all there is, a recurrent head decides.

    h_t = LM(X_1 .. X_t)    what the person did, as text
    y_t = LM(Y_t)           what the item says
    c_t = LM(C_t)           the situation, as text
    z_t = [h_t ; y_t ; c_t]
    p(next | z_1 .. z_t) = softmax(head(z_1 .. z_t))

Shapes: B histories, L steps, N targets, I catalogue (with the padding row), D width, E width of text embeddings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX, CategoryColumn, Dataset, Histories
from recloom.encoders import behavior_text, context_text
from recloom.errors import ConfigError
from recloom.models.circumstances import MOST_CONTEXT_VALUES
from recloom.models.interface import ItemText, Span, TrainedModel, TrainingData, VectorModel

LONGEST_TITLE = 80
"""Characters of a title in a behaviour text. The encoder cuts what is too long at the end, where the newest is."""
HEADS: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True, kw_only=True)
class LMFusionConfig:
    """Hyperparameters of `lm-fusion`: the [model] table of a run file."""

    head: Literal["gru", "lstm"] = "gru"
    """What turns the fused encodings into a prediction."""
    hidden_dim: int = 128
    """Width D of the head's state."""
    max_length: int = 50
    """Interactions of a history that the head reads, the newest ones."""
    behavior_window: int = 5
    """Interactions that one behaviour text reads back. A text names X_1 to X_t in full when it is max_length; every
    step of every history is a text of its own, so this sets how long the language model is at work."""
    dropout: float = 0.3
    """Share of input and output values set to zero in training."""

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ConfigError(f"model.head is {self.head!r}; choose {' or '.join(HEADS)}")
        for name in ("hidden_dim", "max_length", "behavior_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to be at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it has to lie in [0, 1)")


class LMFusion(TrainedModel, VectorModel):
    """Frozen encodings of behaviour, item and context, concatenated at each step; GRU or LSTM; cross-entropy.

    The one departure: a behaviour text reads back `behavior_window` interactions and the head remembers the
    rest, because a text for each prefix of a long history costs more than anybody would wait for.

    An item without training interactions has a head weight that never learned; it is scored, and comes last.
    """

    name = "lm-fusion"
    Config = LMFusionConfig
    search_space = {
        "model.hidden_dim": [64, 128, 256],
        "model.dropout": Span(0.1, 0.6),
        "training.learning_rate": Span(5e-4, 5e-3, log=True),
    }
    needs_text = True
    text_IE: Tensor
    seen_I: Tensor

    def __init__(self, config: LMFusionConfig, dataset: Dataset, text: ItemText) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        self._dataset, self._text = dataset, text
        embedding_dim = text.vectors_IE.shape[1]
        self.register_buffer("text_IE", torch.from_numpy(text.vectors_IE), persistent=False)
        self.register_buffer("seen_I", torch.zeros(len(dataset.items) + 1, dtype=torch.bool))
        self._encodings = _Encodings(text)
        self.dropout = nn.Dropout(config.dropout)
        self.head = HEADS[config.head](3 * embedding_dim, config.hidden_dim, batch_first=True)
        self.to_scores = nn.Linear(config.hidden_dim, len(dataset.items) + 1)

    @property
    def reads_requests(self) -> bool:
        return any(isinstance(column, CategoryColumn) for column in self._dataset.context.values())

    def prepare(self, data: TrainingData) -> None:
        self.seen_I = torch.from_numpy(data.item_counts() > 0)

    def read_items(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        self.text_IE[rows_N] = embedding_NE.to(self.text_IE)

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        bias_I1 = self.to_scores.bias.masked_fill(~self.seen_I, -1e4)[:, None]
        vectors_ID = torch.cat([self.to_scores.weight, bias_I1], dim=1)
        return vectors_ID if rows_N is None else vectors_ID[rows_N]

    def similarity_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return self.to_scores.weight if rows_N is None else self.to_scores.weight[rows_N]

    def queries(self, histories: Histories) -> Tensor:
        query_BLD = self.step_queries(histories)
        last_B = torch.from_numpy(histories.length_B) - 1
        return query_BLD[torch.arange(len(last_B)), last_B]

    def step_queries(self, histories: Histories) -> Tensor:
        hidden_BLD = self._read(histories)
        return torch.cat([hidden_BLD, torch.ones_like(hidden_BLD[..., :1])], dim=2)

    def loss(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long().to(self.text_IE.device)
        is_target_BL = item_index_BL[:, 1:] != PADDING_INDEX
        hidden_ND = self.dropout(self._read(histories)[:, :-1][is_target_BL])
        return functional.cross_entropy(self.to_scores(hidden_ND), item_index_BL[:, 1:][is_target_BL])

    def _read(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        behavior_BLE, context_BLE = self._encodings.of(
            [self._behavior_texts(histories), self._context_texts(histories)], histories.length_B
        )
        fused_BLZ = torch.cat(
            [behavior_BLE.to(self.text_IE), self.text_IE[item_index_BL], context_BLE.to(self.text_IE)], dim=2
        )
        hidden_BLD, _ = self.head(self.dropout(fused_BLZ))
        return hidden_BLD

    def _behavior_texts(self, histories: Histories) -> list[list[str]]:
        """For each history and step, say what the person did up to there."""
        behaviors = ["", *self._dataset.behavior.vocabulary.ids]
        item_ids = ["", *self._dataset.items.ids]
        texts = []
        for row, length in enumerate(histories.length_B):
            events = [
                (behaviors[behavior], item_ids[item], self._text.titles[item][:LONGEST_TITLE])
                for behavior, item in zip(
                    histories.behavior_index_BL[row, :length], histories.item_index_BL[row, :length], strict=True
                )
            ]
            begins = [max(0, step + 1 - self.config.behavior_window) for step in range(length)]
            texts.append([behavior_text(events[begin : step + 1]) for step, begin in enumerate(begins)])
        return texts

    def _context_texts(self, histories: Histories) -> list[list[str]]:
        """For each history and step, say when and where it was, and what the person is interested in.

        Of the request for the next item no more is said than the context columns that are known, in the place of
        the newest interaction's.
        """
        words = {
            name: ["", *column.vocabulary.ids]
            for name, column in self._dataset.context.items()
            if isinstance(column, CategoryColumn) and len(column.vocabulary) <= MOST_CONTEXT_VALUES
        }
        interests = [""]
        if "interests" in self._dataset.user_table.columns:
            interests += self._dataset.user_table["interests"].to_list()
        texts = []
        for row, length in enumerate(histories.length_B):
            known = interests[histories.user_index_B[row]] if len(interests) > 1 else ""
            texts.append(
                [
                    context_text(
                        int(histories.timestamp_BL[row, step]) or None,
                        {
                            name: of[
                                (histories.request.context_B[name][row] if step == length - 1 else 0)
                                or histories.context_BL[name][row, step]
                            ]
                            for name, of in words.items()
                        },
                        known,
                    )
                    for step in range(length)
                ]
            )
        return texts


class _Encodings:
    """Every text the model has met and its encoding, kept in memory so that an epoch asks for nothing twice."""

    def __init__(self, text: ItemText) -> None:
        self._read = text.read
        self._row_by_text: dict[str, int] = {}
        self._vectors_NE = np.zeros((0, text.vectors_IE.shape[1]), dtype=np.float32)

    def of(self, texts: list[list[list[str]]], length_B: np.ndarray) -> list[Tensor]:
        """Return the encodings of several texts a step, each of shape (B, L, E), zero where padded."""
        new = list(dict.fromkeys(t for kind in texts for row in kind for t in row if t not in self._row_by_text))
        if new:
            self._row_by_text |= {text: len(self._row_by_text) + i for i, text in enumerate(new)}
            self._vectors_NE = np.concatenate([self._vectors_NE, self._read(new)])
        inside_BL = np.arange(int(length_B.max(initial=0))) < length_B[:, None]
        encoded = []
        for kind in texts:
            vectors_BLE = np.zeros((*inside_BL.shape, self._vectors_NE.shape[1]), dtype=np.float32)
            vectors_BLE[inside_BL] = self._vectors_NE[[self._row_by_text[text] for row in kind for text in row]]
            encoded.append(torch.from_numpy(vectors_BLE))
        return encoded

    def __deepcopy__(self, memo: dict[int, object]) -> "_Encodings":
        return self  # a copy of the model for ranking goes on using the one memory
