"""What a business wants of a list -> which items may be in it, and what they count for.

Rules hold by construction: what may not be shown is out before the search begins, whatever finds the candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recloom.errors import ConfigError
from recloom.retrieval.catalogue import Catalogue


@dataclass(frozen=True, kw_only=True)
class Boost:
    """Items that count for more, or for less, than the model thinks."""

    weight: float = 1.0
    """How many times as likely an item is taken to be: its score grows by the logarithm of it."""
    column: str | None = None
    """A column of numbers above 0, such as a margin, that the weight is multiplied by."""
    where: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Which items, by what their columns say."""
    items: tuple[str, ...] = ()
    """And which, by id."""

    def __post_init__(self) -> None:
        if not (self.weight > 0 and np.isfinite(self.weight)):
            raise ConfigError(f"a boost has the weight {self.weight}; it has to be above 0, and 1 changes nothing")
        if not (self.where or self.items or self.column):
            raise ConfigError("a boost names no items; give it where, items or a column")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a list has to obey: `filters` of a request, and the [rules] table of a service's settings."""

    allow: tuple[str, ...] | None = None
    """The only items that may be shown."""
    deny: tuple[str, ...] = ()
    """Items that may not be shown."""
    where: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What an item's columns have to say: {"price": {"<": 100}, "language": {"in": ["en", "fr"]}}."""
    max_per: dict[str, int] = field(default_factory=dict)
    """Most items of a list that share a value of a column: {"category": 3}."""
    diversity: float = 0.0
    """From 0, by score alone, to 1: how much an item's likeness to those above it counts against it (MMR)."""
    pinned: tuple[str, ...] = ()
    """Items to stand first, in this order, as far as they may be shown."""
    boosts: tuple[Boost, ...] = ()
    """What counts for more or less than the model thinks."""

    def __post_init__(self) -> None:
        if not 0 <= self.diversity <= 1:
            raise ConfigError(f"diversity is {self.diversity}; it has to lie between 0 and 1")
        for name, most in self.max_per.items():
            if most < 1:
                raise ConfigError(f"max_per of {name} is {most}; a list needs at least one item a value")

    def and_also(self, other: "Rules") -> "Rules":
        """Return rules that hold both: what either forbids is forbidden, and the other's pins come first."""
        both = None
        if self.allow is not None or other.allow is not None:
            allowed = [set(rules.allow) for rules in (self, other) if rules.allow is not None]
            both = tuple(sorted(set.intersection(*allowed)))
        where = {name: dict(tests) for name, tests in self.where.items()}
        for name, tests in other.where.items():
            where.setdefault(name, {})
            for operator, wanted in tests.items():
                if operator in where[name] and where[name][operator] != wanted:
                    try:
                        wanted = _stricter(operator, where[name][operator], wanted, name)
                    except TypeError:
                        raise ConfigError(
                            f"the condition {operator} {wanted!r} on {name} cannot be held against another one,"
                            f" {operator} {where[name][operator]!r}"
                        ) from None
                where[name][operator] = wanted
        most = dict(self.max_per)
        for name, count in other.max_per.items():
            most[name] = min(count, most.get(name, count))
        return replace(
            self,
            allow=both,
            deny=self.deny + other.deny,
            where=where,
            max_per=most,
            diversity=other.diversity or self.diversity,
            pinned=tuple(dict.fromkeys(other.pinned + self.pinned)),
            boosts=self.boosts + other.boosts,
        )

    def allowed_mask(self, catalogue: Catalogue, now: float) -> np.ndarray:
        """Return which items may be shown, shape (size,), for the caller to write to.

        Raises:
            ConfigError: A condition cannot be understood.
        """
        is_allowed_I = catalogue.open_mask(now).copy()
        if self.where:
            is_allowed_I &= catalogue.mask(self.where)
        if self.allow is not None:
            is_listed_I = np.zeros(catalogue.size, dtype=bool)
            is_listed_I[[catalogue.row_of(id_) for id_ in self.allow]] = True
            is_allowed_I &= is_listed_I
        if self.deny:
            is_allowed_I[[catalogue.row_of(id_) for id_ in self.deny]] = False
        is_allowed_I[0] = False
        return is_allowed_I

    def boosted(self, catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the rows whose scores change, and by how much; None where none does."""
        if not self.boosts:
            return None
        change_I = np.zeros(catalogue.size, dtype=np.float32)
        for boost in self.boosts:
            is_meant_I = np.full(catalogue.size, not (boost.where or boost.items))
            if boost.where:
                is_meant_I |= catalogue.mask(boost.where)
            is_meant_I[[catalogue.row_of(id_) for id_ in boost.items]] = True
            gain_I = np.full(catalogue.size, np.log(boost.weight))
            if boost.column is not None:
                numbers_I = catalogue.numbers(boost.column)
                is_meant_I &= numbers_I > 0  # of an item without a number nothing is known that could change its score
                gain_I[is_meant_I] += np.log(numbers_I[is_meant_I])
            change_I[is_meant_I] += gain_I[is_meant_I]
        rows = np.flatnonzero(change_I)
        rows = rows[rows > 0]
        return rows, change_I[rows]

    @property
    def size(self) -> int:
        """Items and values that are named, all together."""
        conditions = [self.where, *(boost.where for boost in self.boosts)]
        values = [wanted for where in conditions for tests in where.values() for wanted in tests.values()]
        named = [self.allow or (), self.deny, self.pinned, *(boost.items for boost in self.boosts)]
        return sum(len(wanted) if isinstance(wanted, list | tuple) else 1 for wanted in values) + sum(map(len, named))

    @property
    def rearranges(self) -> bool:
        """Whether a list is more than the best items in their order."""
        return bool(self.max_per or self.diversity or self.pinned)


def _stricter(operator: str, one: Any, other: Any, name: str) -> Any:
    """Return what meets two conditions of the same operator."""
    if operator in ("<", "<="):
        return min(one, other)
    if operator in (">", ">="):
        return max(one, other)
    if operator == "in":
        return [value for value in one if value in other]
    if operator == "not in":
        return [*one, *other]
    raise ConfigError(f"the service's own rules already say {operator} {one!r} of {name}; {other!r} cannot be added")


def rows_of(catalogue: Catalogue, item_ids: Sequence[str]) -> list[int]:
    """Return the rows of items, without those nobody knows."""
    return [row for id_ in item_ids if (row := catalogue.row_of(id_))]
