"""When, where, by whom and how something happened -> one vector to add to what happened.

Shapes: an event or a request each has one value of each kind, in arrays of any one shape (...); D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from recloom.dataset import CategoryColumn, Dataset, Histories
from recloom.models.interface import TrainingData
from recloom.models.time_buckets import GAP_BUCKETS, HOURS, WEEKDAYS, gap_buckets_of, hours, weekdays

SESSION_GAP_SECONDS = 1_800
"""A longer pause begins a new session: half an hour, the usual convention of web analytics."""
SESSION_STEPS = 16
"""Steps into a session that are told apart."""
MOST_CONTEXT_VALUES = 1_000
"""A column with more different words than this is an id of something (a session, a request), not context."""

GENERAL_KINDS = ("gap", "hour", "weekday", "behavior", "session step")
"""Kinds of circumstances that mean the same in every log; a behaviour does where it has the same name."""


@dataclass(frozen=True)
class Moments:
    """The circumstances of events, or of requests for what comes next."""

    timestamp: np.ndarray
    """UTC seconds; 0 where unknown."""
    gap: np.ndarray
    """Seconds since the event before; -1 where unknown."""
    context: Mapping[str, np.ndarray]
    """Values of the log's context columns: indices of words, 0 where unknown, or numbers, NaN where unknown."""
    user_index: np.ndarray
    behavior: np.ndarray | None = None
    """What an event was; None for a request, whose outcome is to be predicted."""
    session_step: np.ndarray | None = None
    """Events since the session began; None for a request."""


def events_of(histories: Histories) -> Moments:
    """Return the circumstances of every event, in arrays of shape (B, L)."""
    gap_BL = np.full(histories.timestamp_BL.shape, -1, dtype=np.int64)
    gap_BL[:, 1:] = np.maximum(np.diff(histories.timestamp_BL, axis=1), 0)
    steps_BL = np.broadcast_to(np.arange(len(gap_BL.T)), gap_BL.shape)
    begins_BL = np.maximum.accumulate(np.where(gap_BL > SESSION_GAP_SECONDS, steps_BL, 0), axis=1)
    return Moments(
        timestamp=histories.timestamp_BL,
        gap=gap_BL,
        context=histories.context_BL,
        user_index=np.broadcast_to(histories.user_index_B[:, None], gap_BL.shape),
        behavior=histories.behavior_index_BL,
        session_step=np.minimum(steps_BL - begins_BL, SESSION_STEPS - 1),
    )


def requests_of(histories: Histories) -> Moments:
    """Return the circumstances in which each history's next item is asked for, in arrays of shape (B,)."""
    last_B = histories.timestamp_BL[np.arange(len(histories)), histories.length_B - 1]
    timestamp_B = histories.request.timestamp_B
    known_B = (timestamp_B > 0) & (last_B > 0)
    gap_B = np.where(known_B, np.maximum(timestamp_B - last_B, 0), -1)
    return Moments(timestamp_B, gap_B, histories.request.context_B, histories.user_index_B)


class Circumstances(nn.Module):
    """The sum of one embedding for each thing that is known; zero, as at the start of training, where nothing is."""

    mean_F: Tensor
    deviation_F: Tensor

    def __init__(self, dataset: Dataset, width: int, *, of_requests: bool) -> None:
        super().__init__()
        self.of_requests = of_requests
        self._word_columns = [
            name
            for name, column in dataset.context.items()
            if isinstance(column, CategoryColumn) and len(column.vocabulary) <= MOST_CONTEXT_VALUES
        ]
        self._number_columns = [n for n, column in dataset.context.items() if not isinstance(column, CategoryColumn)]
        values: list[tuple[str, Sequence[Any]]] = [
            ("gap", range(GAP_BUCKETS)),
            ("hour", range(HOURS)),
            ("weekday", range(WEEKDAYS)),
        ]
        if not of_requests:
            values += [("behavior", dataset.behavior.vocabulary.ids), ("session step", range(SESSION_STEPS))]
        for name in self._word_columns:
            column = dataset.context[name]
            assert isinstance(column, CategoryColumn)
            values.append((f"context {name}", column.vocabulary.ids))
        self._codes_by_user = []
        for name in dataset.user_table.columns:
            words = sorted(dataset.user_table[name].drop_nulls().cast(pl.String).unique())
            if name != "user_id" and len(words) <= MOST_CONTEXT_VALUES:
                self._codes_by_user.append(_user_codes(dataset, name, words))
                values.append((f"user {name}", words))
        # All kinds share one table, each from its own row on, so that one lookup adds them up; row 0 is "unknown".
        sizes = [len(of_kind) for _, of_kind in values]
        self._first_rows = np.cumsum([1, *sizes[:-1]])
        self._row_of: dict[tuple[str, Any], int] = {("unknown", None): 0} | {
            (kind, value): row for row, (kind, value) in enumerate(((k, v) for k, of in values for v in of), start=1)
        }
        self.table = nn.EmbeddingBag(1 + sum(sizes), width, mode="sum", padding_idx=0)
        # An item is what it is until its circumstances prove to matter.
        nn.init.zeros_(self.table.weight)
        self.numbers = nn.Linear(len(self._number_columns), width, bias=False) if self._number_columns else None
        self.register_buffer("mean_F", torch.zeros(len(self._number_columns), dtype=torch.float64))
        self.register_buffer("deviation_F", torch.ones(len(self._number_columns), dtype=torch.float64))
        if self.numbers is not None:
            nn.init.zeros_(self.numbers.weight)

    def prepare(self, data: TrainingData) -> None:
        """Take from the training data how numbers are to be scaled."""
        for column, name in enumerate(self._number_columns):
            values = data.dataset.context[name].values

            def known(values: np.ndarray = values) -> Iterator[np.ndarray]:
                for block in data.segments.blocks():
                    found = values[block.positions()].astype(np.float64)
                    yield found[np.isfinite(found)]

            count, total = np.sum([(len(found), found.sum()) for found in known()], axis=0)
            if count:
                mean = total / count
                deviation = np.sqrt(sum(np.square(found - mean).sum() for found in known()) / count)
                self.mean_F[column], self.deviation_F[column] = mean, deviation if deviation > 0 else 1.0

    def row_sources(self, other: "Circumstances") -> Tensor:
        """Return the row of another table that means what each row of this one's does, -1 where none does."""
        return torch.tensor([other._row_of.get(meaning, -1) for meaning in self._row_of])

    def general(self) -> tuple[tuple[tuple[str, str], ...], Tensor]:
        """Return what rows of the table mean that mean something in any log, and these rows; shape (R, D)."""
        rows = {m: row for m, row in self._row_of.items() if m[0] in GENERAL_KINDS}
        return tuple((kind, str(value)) for kind, value in rows), self.table.weight.detach()[list(rows.values())]

    @torch.no_grad()
    def begin_with(self, meanings: Sequence[tuple[str, str]], rows_RD: Tensor) -> None:
        """Take over rows of a table that was learned elsewhere, as `general` gives them; others stay as they are."""
        row_of = {meaning: row for row, meaning in enumerate(meanings)}
        for meaning, own in self._row_of.items():
            if meaning[0] in GENERAL_KINDS and (known := row_of.get((meaning[0], str(meaning[1])))) is not None:
                self.table.weight[own] = rows_RD[known]

    def forward(self, moments: Moments) -> Tensor:
        """Return one vector a moment, shape (..., D)."""
        device = self.table.weight.device
        timestamp, gap = moments.timestamp, moments.gap
        # 0 is unknown, and the first value of each kind is 1. With numpy: a single history is dozens of small
        # steps, each of which takes torch several times as long to call as to do.
        has_time = timestamp > 0
        codes = [
            np.where(gap >= 0, gap_buckets_of(gap) + 1, 0),
            np.where(has_time, hours(timestamp) + 1, 0),
            np.where(has_time, weekdays(timestamp) + 1, 0),
        ]
        if not self.of_requests:
            assert moments.behavior is not None
            assert moments.session_step is not None
            codes += [moments.behavior, moments.session_step + 1]
        codes += [moments.context[name] for name in self._word_columns]
        codes += [of_user[moments.user_index] for of_user in self._codes_by_user]
        rows = np.empty((*timestamp.shape, len(codes)), dtype=np.int64)
        for place, (code, first) in enumerate(zip(codes, self._first_rows, strict=True)):
            rows[..., place] = (code + (first - 1)) * (code > 0)
        rows_NF = torch.from_numpy(rows.reshape(-1, len(codes))).to(device)
        vectors = self.table(rows_NF).reshape(*timestamp.shape, -1)
        if self.numbers is not None:
            values = np.stack([moments.context[name] for name in self._number_columns], axis=-1)
            scaled = (torch.from_numpy(values).double().to(device) - self.mean_F) / self.deviation_F
            vectors = vectors + self.numbers(torch.nan_to_num(scaled, nan=0.0).to(vectors.dtype))
        return vectors


def _user_codes(dataset: Dataset, name: str, words: Sequence[str]) -> np.ndarray:
    """Number the values of a column of the user table, by user index; 0 where there is none."""
    index_of = {word: index for index, word in enumerate(words, start=1)}
    values = dataset.user_table[name].cast(pl.String)
    return np.array([0, *(index_of.get(value, 0) for value in values)], dtype=np.int64)
