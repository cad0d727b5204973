"""A dataset -> shards of its people, each a dataset of its own in which nobody else ever was."""

import hashlib

import numpy as np
import polars as pl

from recloom.dataset.dataset import Dataset
from recloom.dataset.growing import log_of, says_nothing
from recloom.dataset.splits import expand_ranges
from recloom.events import Entities, Interactions


def shard_of(user_id: str, num_shards: int) -> int:
    """Return the shard of somebody, from 0: a digest of the id, so that nobody's shard depends on who else is there.

    >>> [shard_of(user, 4) for user in ("alice", "bob", "carol")]
    [1, 2, 1]
    """
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest(), "big") % num_shards


def shard_positions(dataset: Dataset, end_U: np.ndarray, num_shards: int) -> list[np.ndarray]:
    """Return where the interactions of each shard are in the flat arrays, ascending.

    Args:
        dataset: Everybody.
        end_U: Where what may be learned ends for each user index, shape (users + 1,).
        num_shards: How many shards there are.
    """
    shard_U = np.array([-1, *(shard_of(user, num_shards) for user in dataset.users.ids)])  # the padding index is nobody
    start_U = dataset.user_offsets[:-1]
    chosen = [shard_U == shard for shard in range(num_shards)]
    return [expand_ranges(start_U[is_in_U], end_U[is_in_U]) for is_in_U in chosen]


def dataset_part(dataset: Dataset, positions: np.ndarray, most_words: int) -> Dataset:
    """Return a dataset of some interactions, the catalogue, and no trace of anything else that happened.

    Its vocabularies know the items that the catalogue describes and those of these interactions, and the behaviours
    and words of context that occur in them. The order of interactions stays.

    Args:
        dataset: Everything.
        positions: Which interactions, ascending; at least one.
        most_words: Columns of more different words than this in everything are ids, and left out: in a part of the
            log they could pass for context.
    """
    log = _without_ids(log_of(dataset), ("user_id", "item_id", "behavior"), most_words)[positions]
    users = _without_ids(dataset.user_table, ("user_id",), most_words)
    return Dataset.from_tables(
        Interactions.of(log),
        Entities.of(dataset.item_table.filter(~says_nothing(dataset.item_table))),
        Entities.of(users.filter(pl.col("user_id").is_in(log["user_id"].cast(pl.String).unique().implode()))),
        pseudonym_key_id=dataset.pseudonym_key_id,
    )


def _without_ids(table: pl.DataFrame, kept: tuple[str, ...], most_words: int) -> pl.DataFrame:
    words = [n for n, dtype in table.schema.items() if n not in kept and not dtype.is_numeric()]
    return table.drop(name for name in words if table[name].drop_nulls().n_unique() > most_words)
