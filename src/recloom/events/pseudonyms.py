"""User ids -> pseudonyms that only who holds the key can make, so that data and models name nobody.

A pseudonym is the keyed hash of an id: the same person always has the same one, and no way leads back. The key lies in
a file of its own, apart from the data; whoever has both can find out whether somebody they know is in the data.
"""

import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

import polars as pl

from recloom.errors import ConfigError
from recloom.events.columns import USER_ID
from recloom.events.tables import Entities, Interactions
from recloom.files import KEY_BYTES, make_key

_LENGTH = 32
"""Hexadecimal digits of a pseudonym: 128 bits, so that no two people share one."""


class Pseudonyms:
    """The pseudonyms of one key.

    Source: HMAC, Krawczyk et al. (1997), https://doi.org/10.17487/RFC2104
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hashlib.sha256(b"recloom key id" + key).hexdigest()[:8]
        """Names the key without giving it away."""

    @classmethod
    def from_file(cls, path: Path, *, create: bool = False) -> "Pseudonyms":
        """Read a key, or make one where there is none yet.

        Raises:
            ConfigError: There is no key, or the file holds something else.
        """
        if create:
            make_key(path)
        try:
            key = bytes.fromhex(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"there is no key at {path}; bring the one that the data was prepared with") from None
        except ValueError:
            raise ConfigError(f"{path} is no key: wanted {2 * KEY_BYTES} hexadecimal digits") from None
        if len(key) != KEY_BYTES:
            raise ConfigError(f"{path} is no key: it holds {len(key)} bytes, wanted {KEY_BYTES}")
        return cls(key)

    def of(self, user_id: str) -> str:
        """Return somebody's pseudonym."""
        return hmac.new(self._key, user_id.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    def in_log(self, log: Interactions) -> Interactions:
        """Return a log that holds pseudonyms, among the rejected rows too."""
        return replace(log, table=self._in_table(log.table), rejects=self._in_table(log.rejects))

    def in_users(self, users: Entities) -> Entities:
        """Return a table of users that holds pseudonyms, among the rejected rows too."""
        return replace(users, table=self._in_table(users.table), rejects=self._in_table(users.rejects))

    def _in_table(self, table: pl.DataFrame) -> pl.DataFrame:
        if USER_ID not in table.columns:
            return table
        ids = table[USER_ID]
        distinct = ids.drop_nulls().unique().cast(pl.String)
        of_id = pl.DataFrame({USER_ID: distinct, "\0": pl.Series(map(self.of, distinct), dtype=pl.String)})
        spelled = table.with_columns(ids.cast(pl.String)).join(of_id, on=USER_ID, how="left", maintain_order="left")
        return spelled.with_columns(pl.col("\0").cast(ids.dtype).alias(USER_ID)).drop("\0").select(table.columns)
