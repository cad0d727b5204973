"""A made-up log of any size, written piece by piece: to find out how long things take, and whether they are learned.

What is in it to find: few items are taken often and most seldom; one item leads to the next within its topic; items
appear over time, and the newest are wanted most; titles share the words of their topic. Nothing else is: a model that
does well here need not do well on what people do.

Shapes: U users of a part, L steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recloom.errors import ConfigError
from recloom.files import replacing

USERS_AT_ONCE = 50_000
ITEMS_AT_ONCE = 200_000
ITEMS_OF_A_TOPIC = 200
MOST_STEPS = 500
"""Interactions of the busiest user."""
BEGIN, DURATION = 1_600_000_000, 2 * 365 * 86_400
"""UTC seconds: two years from September 2020."""
THERE_AT_FIRST = 0.5
"""Share of a topic's items that are there when the log begins; the others come one after the other."""
FOLLOWS, WITHIN_INTERESTS = 0.5, 0.4
"""How often the next item is the one that the last leads to, and how often any of the person's topics; else any."""
SYLLABLES = [consonant + "aeiou"[place % 5] for place, consonant in enumerate("bcdfghjklmnprstvwxyz")]


@dataclass(frozen=True)
class Synthetic:
    """How much of it there is, and which."""

    users: int
    items: int
    interactions: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("users", "items", "interactions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; there has to be at least one")
        if not self.users <= self.interactions <= MOST_STEPS * self.users // 5:
            raise ConfigError(
                f"{self.interactions:,} interactions of {self.users:,} users: each has to have at least one, and"
                f" {MOST_STEPS // 5} on average at most"
            )

    @property
    def num_topics(self) -> int:
        """Topics; each has as many items as the next, one more or less."""
        return max(1, self.items // ITEMS_OF_A_TOPIC)


def write_synthetic(out: Path, what: Synthetic, progress: Callable[[int, int], None] | None = None) -> None:
    """Write `interactions/*.parquet`, sorted by user and time, and `items/*.parquet`; memory does not grow with either.

    Each part depends on the seed and its number alone.

    Raises:
        ConfigError: The folder is there already.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already; choose another folder")
    with replacing(out) as beside:
        (beside / "interactions").mkdir(parents=True)
        (beside / "items").mkdir()
        for part, begin in enumerate(range(0, what.items, ITEMS_AT_ONCE)):
            _items(what, begin).write_parquet(beside / "items" / f"part-{part:05}.parquet")
        for part, begin in enumerate(range(0, what.users, USERS_AT_ONCE)):
            _interactions(what, part).write_parquet(beside / "interactions" / f"part-{part:05}.parquet")
            if progress:
                progress(min(begin + USERS_AT_ONCE, what.users), what.users)


def _items(what: Synthetic, begin: int) -> pl.DataFrame:
    item = np.arange(begin, min(begin + ITEMS_AT_ONCE, what.items))
    topic = item % what.num_topics
    # A title: two of its topic's five words, and one of its own.
    first, second = _mixed(item, what.seed, 1) % 5, _mixed(item, what.seed, 2) % 4
    second = (first + 1 + second) % 5
    words = [_words(_mixed(topic * 5 + number, what.seed, 3)) for number in (first, second)]
    return pl.DataFrame(
        {
            "item_id": item,
            "title": [" ".join(three) for three in zip(*words, _words(_mixed(item, what.seed, 4)), strict=True)],
            "category": [f"topic{number}" for number in topic],
        }
    )


def _interactions(what: Synthetic, part: int) -> pl.DataFrame:
    rng = np.random.default_rng((what.seed, part))
    first = part * USERS_AT_ONCE
    user_U = np.arange(first, min(first + USERS_AT_ONCE, what.users))
    length_U = _lengths(rng, len(user_U), _share(what, user_U[-1] + 1) - _share(what, first))
    begin_U = rng.random(len(user_U)) * DURATION * 0.9
    interests_U3 = (what.num_topics * rng.random((len(user_U), 3)) ** 2).astype(
        np.int64
    )  # few topics are many people's
    # Busiest first, so that each step concerns the first so many users.
    order = np.argsort(-length_U, kind="stable")
    still_there = np.searchsorted(-length_U[order], -np.arange(1, length_U.max() + 1), side="right")
    time_U, last_U = begin_U[order], np.full(len(user_U), -1)
    columns: list[list[np.ndarray]] = [[], [], []]
    for step, number in enumerate(still_there):
        chosen = order[:number]
        # Sittings of a few minutes, days apart; nobody goes on after the end of the log.
        within = rng.random(number) < 0.6
        gap = np.where(within, rng.exponential(120, number), rng.exponential(4 * 86_400, number)) * (step > 0)
        time_U[:number] = np.minimum(time_U[:number] + 1 + gap, DURATION)
        item = _next_items(what, rng, last_U[:number], interests_U3[chosen], time_U[:number] / DURATION)
        last_U[:number] = item
        for column, values in zip(columns, (user_U[chosen], item, time_U[:number].copy()), strict=True):
            column.append(values)
    user, item, time = (np.concatenate(column) for column in columns)
    by_user = np.argsort(user, kind="stable")
    return pl.DataFrame(
        {
            "user_id": user[by_user],
            "item_id": item[by_user],
            "timestamp": BEGIN + time[by_user].astype(np.int64),
            "behavior": np.where(rng.random(len(user)) < 0.1, "purchase", "view"),
        }
    )


def _share(what: Synthetic, users: int) -> int:
    """Return how many interactions the first so many users have together."""
    return what.interactions * users // what.users


def _lengths(rng: np.random.Generator, users: int, interactions: int) -> np.ndarray:
    """Deal interactions out to users: at least one each, a few with very many."""
    weight_U = rng.lognormal(sigma=1.0, size=users).clip(max=20)
    length_U = 1 + rng.multinomial(interactions - users, weight_U / weight_U.sum())
    over = int((length_U - MOST_STEPS).clip(min=0).sum())
    length_U = length_U.clip(max=MOST_STEPS)
    while over:  # seldom, and of few
        room = np.flatnonzero(length_U < MOST_STEPS)
        more = rng.choice(room, min(over, len(room)), replace=False)
        length_U[more] += 1
        over -= len(more)
    return length_U


def _next_items(
    what: Synthetic, rng: np.random.Generator, last_U: np.ndarray, interests_U3: np.ndarray, now_U: np.ndarray
) -> np.ndarray:
    """Choose what each user takes next, at a time between 0 and 1."""
    number = len(last_U)
    kind_U = rng.random(number)
    follows_U = (kind_U < FOLLOWS) & (last_U >= 0)
    own_U = interests_U3[np.arange(number), rng.integers(3, size=number)]
    anywhere_U = (what.num_topics * rng.random(number) ** 2).astype(np.int64)
    topic_U = np.where(kind_U < FOLLOWS + WITHIN_INTERESTS, own_U, anywhere_U)
    topic_U = np.where(follows_U, last_U % what.num_topics, topic_U)
    size_U = (what.items - 1 - topic_U) // what.num_topics + 1
    there_U = np.maximum(1, (size_U * (THERE_AT_FIRST + (1 - THERE_AT_FIRST) * now_U)).astype(np.int64))
    # The newest are wanted most; of three that come to mind, the best is taken.
    best_U = np.zeros(number, dtype=np.int64)
    best_quality_U = np.full(number, -1)
    for _ in range(3):
        place_U = there_U - 1 - (there_U * rng.random(number) ** 2).astype(np.int64)
        quality_U = _mixed(place_U * what.num_topics + topic_U, what.seed, 5) % 1_000_003
        better_U = quality_U > best_quality_U
        best_U = np.where(better_U, place_U, best_U)
        best_quality_U = np.maximum(quality_U, best_quality_U)
    last_place_U = last_U // what.num_topics
    following_U = (last_place_U + 1 + _mixed(last_U, what.seed, 6) % 3) % there_U
    return np.where(follows_U, following_U, best_U) * what.num_topics + topic_U


def _mixed(numbers: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Scramble numbers, each by itself: the finaliser of SplitMix64 (Steele et al. 2014); never negative."""
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) + np.uint64((seed * 31 + purpose) % 2**32) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def _words(numbers: np.ndarray) -> list[str]:
    """Spell numbers as words of three or four syllables."""
    size = len(SYLLABLES)
    syllables = np.array(SYLLABLES)
    parts = [syllables[(numbers // size**place) % size] for place in range(4)]
    last = np.where(numbers % 2, parts[3], "")
    return [first + second + third + fourth for first, second, third, fourth in zip(*parts[:3], last, strict=True)]
