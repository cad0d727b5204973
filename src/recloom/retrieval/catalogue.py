"""What the items say -> columns that answer filters, and which items may be shown now.

A row is an item index: row 0 is padding, rows beyond the last item wait for items that come at run time.
"""

import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from recloom.config import suggestion
from recloom.errors import ConfigError

Value = str | float | bool
Conditions = Mapping[str, Mapping[str, Any]]
"""What columns have to say: `{"price": {"<": 100}, "language": {"in": ["en", "fr"]}}`."""
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "not in")
_COMPARE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
MOST_MASK_BYTES = 64_000_000
"""Memory of the answers to conditions that are kept, least recently used first to go."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """When an item may be shown: the [availability] table of a service's settings."""

    published: str = "available_from"
    """Column with the time from which an item may be shown: UTC seconds or ISO 8601; empty for always."""
    expires: str = "available_until"
    """Column with the time from which it may not be shown any more."""


class Catalogue:
    """Ids, titles and columns of all items, changed in place as items come, change and go.

    Not safe to change while somebody else reads.
    """

    def __init__(self, table: pl.DataFrame, titles: Sequence[str], spare: int, availability: Availability) -> None:
        """Take over a catalogue.

        Args:
            table: `item_id` and further columns; row `i - 1` is item index `i`.
            titles: What to call each item, by index; "" for the padding row.
            spare: Rows that are kept for items to come.
            availability: Which columns say when an item may be shown.
        """
        self._table = table
        self._availability = availability
        self.ids: list[str] = ["", *table["item_id"].to_list()]
        self.titles = [*titles]
        self.size = len(self.ids) + spare
        self._row_by_id = {id_: row for row, id_ in enumerate(self.ids) if row}
        self._changed: dict[int, Mapping[str, Value]] = {}
        self._columns: dict[str, _Words | _Numbers] = {}
        self._names = [name for name in table.columns if name != "item_id"]
        self._masks: dict[str, np.ndarray] = {}
        self._mask_bytes = 0
        self._folded_I = pl.Series(list(map(_folded, self.titles, self.ids)), dtype=pl.String)
        self._folded_since: dict[int, str] = {}
        self._is_withdrawn = np.zeros(self.size, dtype=bool)
        self._is_placed = np.zeros(self.size, dtype=bool)
        self._is_placed[1 : len(self.ids)] = True
        self._times = [self._times_of(name) for name in (availability.published, availability.expires)]
        self._open: tuple[float, float, np.ndarray] | None = None
        self.revision = 0
        """Counts the changes: what was computed under an earlier one may be wrong."""

    def __len__(self) -> int:
        return len(self._row_by_id)

    @property
    def room(self) -> int:
        """Rows that are left for items to come."""
        return self.size - len(self.ids)

    @property
    def column_names(self) -> list[str]:
        """Columns that a condition may name."""
        return list(self._names)

    def row_of(self, item_id: str) -> int:
        """Return the row of an item, or 0 where nobody knows it."""
        return self._row_by_id.get(item_id, 0)

    def values_of(self, row: int) -> dict[str, Any]:
        """Return what the catalogue says of an item, by column; without what it leaves open."""
        if row in self._changed:
            return dict(self._changed[row])
        if not 0 < row <= len(self._table):
            return {}
        return {name: value for name, value in self._table.row(row - 1, named=True).items()
                if name != "item_id" and value is not None}  # fmt: skip

    def value(self, name: str, row: int) -> Any:
        """Return what one column says of an item; None where it says nothing."""
        if row in self._changed:
            return self._changed[row].get(name)
        return self._table[name][row - 1] if name in self._table.columns and row <= len(self._table) else None

    def titles_now(self) -> "Titles":
        """Return titles and ids to search, which do not change any more."""
        return Titles(self._folded_I, dict(self._folded_since))

    # Changing

    def put(self, item_id: str, columns: Mapping[str, Value], title: str) -> int:
        """Add an item, or replace what is known of it, and return its row.

        An item that is new is not shown before `place` says that the model knows where it belongs.

        Raises:
            ConfigError: There is no room left, or a column of numbers is given a word.
        """
        row = self.row_of(item_id)
        if not row:
            if not self.room:
                raise ConfigError(f"there is no room for another item beside {len(self):,}; load the model again")
            row = len(self.ids)
            self.ids.append(item_id)
            self.titles.append("")
            self._row_by_id[item_id] = row
        for name in columns:
            if name not in self._names:
                self._names.append(name)
        self._changed[row] = dict(columns)
        self.titles[row] = title
        self._folded_since[row] = _folded(title, item_id)
        for name, column in list(self._columns.items()):
            try:
                column.set(row, columns.get(name))
            except ValueError:
                del self._columns[name]  # a column of numbers has a word now: it is read anew, as words
        for times_I, name in zip(self._times, (self._availability.published, self._availability.expires), strict=True):
            times_I[row] = _seconds(columns.get(name))
        self._is_withdrawn[row] = False
        self._touch()
        return row

    def place(self, rows: Sequence[int]) -> None:
        """Let items be shown that the model has been told about."""
        self._is_placed[list(rows)] = True
        self._touch()

    @property
    def placed_mask(self) -> np.ndarray:
        """Which items the model knows the place of, shape (size,); not to be written to."""
        return self._is_placed

    def withdraw(self, item_id: str) -> None:
        """Never show an item again, until it is put anew."""
        if row := self.row_of(item_id):
            self._is_withdrawn[row] = True
            self._touch()

    def _touch(self) -> None:
        self.revision += 1
        self._open = None
        self._masks.clear()
        self._mask_bytes = 0

    # Asking

    def open_mask(self, now: float) -> np.ndarray:
        """Return which items may be shown at a time, shape (size,); not to be written to.

        Args:
            now: UTC seconds.
        """
        if self._open is None or not self._open[0] <= now < self._open[1]:
            published_I, expires_I = self._times
            is_open_I = self._is_placed & ~self._is_withdrawn
            is_open_I &= (np.isnan(published_I) | (published_I <= now)) & (np.isnan(expires_I) | (expires_I > now))
            moments = np.concatenate([published_I, expires_I])
            moments = np.sort(moments[~np.isnan(moments)])
            next_one = bisect_right(moments, now)
            since = moments[next_one - 1] if next_one else -math.inf
            self._open = (since, moments[next_one] if next_one < len(moments) else math.inf, is_open_I)
        return self._open[2]

    def mask(self, conditions: Conditions) -> np.ndarray:
        """Return which items meet all conditions, shape (size,); not to be written to.

        An item of which a column says nothing meets no condition on it but `!=` and `not in`.

        Raises:
            ConfigError: A condition cannot be understood; the message says what can.
        """
        key = repr(conditions)
        if key in self._masks:
            self._masks[key] = self._masks.pop(key)
            return self._masks[key]
        is_met_I = np.ones(self.size, dtype=bool)
        for name, tests in conditions.items():
            column = self.column(name)
            for operator, wanted in _checked(name, tests).items():
                is_met_I &= column.mask(operator, wanted)
        self._masks[key] = is_met_I
        self._mask_bytes += _bytes_of(key, is_met_I)
        while self._mask_bytes > MOST_MASK_BYTES and len(self._masks) > 1:
            oldest = next(iter(self._masks))
            self._mask_bytes -= _bytes_of(oldest, self._masks.pop(oldest))
        return is_met_I

    def column(self, name: str) -> "_Words | _Numbers":
        """Return a column, read when first asked for.

        Raises:
            ConfigError: There is no such column.
        """
        if name not in self._columns:
            if name not in self._names:
                raise ConfigError(f"the catalogue has no column {name!r}; {suggestion(name, self._names)}")
            if name in self._table.columns:
                values = self._table[name]
            else:
                values = pl.Series(name, [None] * len(self._table), dtype=pl.Float64)
            changes = {row: columns.get(name) for row, columns in self._changed.items()}
            is_number = values.dtype.is_numeric() and not any(isinstance(v, str | bool) for v in changes.values())
            column = (_Numbers if is_number else _Words)(name, values, self.size)
            for row, value in changes.items():
                column.set(row, value)
            self._columns[name] = column
        return self._columns[name]

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of numbers, NaN where it says nothing, shape (size,); not to be written to.

        Raises:
            ConfigError: There is no such column, or it holds words.
        """
        column = self.column(name)
        if not isinstance(column, _Numbers):
            raise ConfigError(f"{name} is a column of words; a column of numbers is wanted")
        return column.values_I

    def _times_of(self, name: str) -> np.ndarray:
        times_I = np.full(self.size, np.nan)
        if name in self._table.columns:
            values = self._table[name]
            if values.dtype.is_numeric():
                times_I[1 : len(values) + 1] = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
            else:
                times_I[1 : len(values) + 1] = [_seconds(value) for value in values.to_list()]
        return times_I


@dataclass(frozen=True)
class Titles:
    """Case-folded titles and ids as of one moment, which any thread may search."""

    at_first: pl.Series
    """Of the items the catalogue began with, by row."""
    since: Mapping[int, str]
    """Of those that came or changed since, by row."""

    def rows_with(self, words: Sequence[str]) -> np.ndarray:
        """Return the rows of items whose title or id holds all of some words, which have to be case-folded."""
        has_all_I = np.ones(len(self.at_first), dtype=bool)
        for word in words:  # by Polars, which lets other threads work meanwhile
            has_all_I &= self.at_first.str.contains(word, literal=True).to_numpy()
        has_all_I[[0, *(row for row in self.since if row < len(has_all_I))]] = False
        changed = [row for row, text in self.since.items() if all(word in text for word in words)]
        return np.sort(np.concatenate([np.flatnonzero(has_all_I), np.array(changed, dtype=np.int64)]))


class _Numbers:
    """A column of numbers; NaN where it says nothing."""

    def __init__(self, name: str, values: pl.Series, size: int) -> None:
        self._name = name
        self.values_I = np.full(size, np.nan)
        self.values_I[1 : len(values) + 1] = values.cast(pl.Float64).fill_null(np.nan).to_numpy()

    def set(self, row: int, value: Any) -> None:
        if isinstance(value, str | bool):
            raise ValueError
        self.values_I[row] = np.nan if value is None else value

    def mask(self, operator: str, wanted: Any) -> np.ndarray:
        if operator in ("in", "not in"):
            is_in_I = np.isin(self.values_I, [self._number(value) for value in wanted])
            return is_in_I if operator == "in" else ~is_in_I
        with np.errstate(invalid="ignore"):
            return _COMPARE[operator](self.values_I, self._number(wanted))

    def groups_of(self, row: int) -> list[Any]:
        value = self.values_I[row]
        return [] if np.isnan(value) else [float(value)]

    def _number(self, value: Any) -> float:
        if isinstance(value, str | bool) or not isinstance(value, int | float):
            raise ConfigError(f"{self._name} is a column of numbers, and {value!r} is none")
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"a number in the condition on {self._name} is too large") from None


class _Words:
    """A column of words; values joined by "|" are several."""

    def __init__(self, name: str, values: pl.Series, size: int) -> None:
        self._name = name
        self._codes_I = np.zeros(size, dtype=np.int32)  # 0 is "says nothing"
        self._parts: list[list[str]] = [[]]
        self._code_by_spelling: dict[str, int] = {"": 0}
        self._codes_by_part: dict[str, list[int]] = {}
        if values.dtype == pl.Boolean:
            values = values.cast(pl.String).str.to_lowercase()
        elif isinstance(values.dtype, pl.List):
            values = values.cast(pl.List(pl.String)).list.join("|")
        spelled = values.cast(pl.String).fill_null("")
        distinct, inverse = np.unique(spelled.to_numpy().astype(object), return_inverse=True)
        codes = np.array([self._code_of(spelling) for spelling in distinct.tolist()], dtype=np.int32)
        self._codes_I[1 : len(spelled) + 1] = codes[inverse] if len(codes) else 0

    def _code_of(self, spelling: str) -> int:
        if spelling not in self._code_by_spelling:
            code = len(self._parts)
            self._code_by_spelling[spelling] = code
            self._parts.append([part.strip() for part in spelling.split("|") if part.strip()])
            for part in self._parts[-1]:
                self._codes_by_part.setdefault(part, []).append(code)
        return self._code_by_spelling[spelling]

    def set(self, row: int, value: Any) -> None:
        self._codes_I[row] = self._code_of(_spelled(value))

    def mask(self, operator: str, wanted: Any) -> np.ndarray:
        if operator in ("<", "<=", ">", ">="):
            raise ConfigError(f"{self._name} is a column of words, which {operator} cannot compare; use = or in")
        is_wanted = np.zeros(len(self._parts), dtype=bool)
        for value in wanted if operator in ("in", "not in") else [wanted]:
            is_wanted[self._codes_by_part.get(_spelled(value), [])] = True
        is_in_I = is_wanted[self._codes_I]
        return is_in_I if operator in ("=", "in") else ~is_in_I

    def groups_of(self, row: int) -> list[Any]:
        return self._parts[self._codes_I[row]]


def _folded(title: str, item_id: str) -> str:
    return f"{title} {item_id}".casefold()


def _bytes_of(key: str, mask_I: np.ndarray) -> int:
    return sys.getsizeof(key) + sys.getsizeof(mask_I)


def _spelled(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value).strip()


def _seconds(value: Any) -> float:
    """Read UTC seconds or ISO 8601; NaN where it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _checked(name: str, tests: Any) -> Mapping[str, Any]:
    if not isinstance(tests, Mapping) or not tests:
        raise ConfigError(f'the condition on {name} is {tests!r}; write it as {{"<": 100}} or {{"in": ["a", "b"]}}')
    for operator, wanted in tests.items():
        if operator not in OPERATORS:
            raise ConfigError(
                f"the condition on {name} has the operator {operator!r}; there are: {', '.join(OPERATORS)}"
            )
        if operator in ("in", "not in") and not isinstance(wanted, list | tuple):
            raise ConfigError(f"the condition {operator!r} on {name} wants a list, and got {wanted!r}")
    return tests
