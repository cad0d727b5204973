"""The tables of a service, in SQLite on one machine or in PostgreSQL shared by several instances."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    create_engine,
    event,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from recloom.errors import ConfigError, MissingExtraError, RecloomError

log = logging.getLogger("recloom.serving")
_BIG = BigInteger().with_variant(Integer, "sqlite")
metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("sequence", _BIG, primary_key=True, autoincrement=True),
    Column("event_id", String, nullable=False, unique=True),
    Column("user_id", String, nullable=False),
    Column("item_id", String, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("behavior", String, nullable=False),
    Column("value", Float),
    Column("context", Text),
    Column("received", BigInteger, nullable=False),
    Column("recommendation_id", String),
    Index("events_by_user", "user_id", "timestamp"),
    Index("events_by_time", "timestamp"),
    Index("events_by_recommendation", "recommendation_id"),
)
recommendations = Table(
    "recommendations",
    metadata,
    Column("recommendation_id", String, primary_key=True),
    Column("user_id", String),
    Column("served", BigInteger, nullable=False),
    Column("experiment", String),
    Column("variant", String),
    Column("is_shadow", Boolean, nullable=False),
    Column("model", String, nullable=False),
    Column("version", String, nullable=False),
    Column("served_by", String, nullable=False),
    Column("item_ids", Text, nullable=False),
    Index("recommendations_by_user", "user_id", "served"),
    Index("recommendations_by_experiment", "experiment", "served"),
    Index("recommendations_by_time", "served"),
)
items = Table(
    "items",
    metadata,
    Column("item_id", String, primary_key=True),
    Column("columns", Text, nullable=False),
    Column("is_withdrawn", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
)
experiments = Table(
    "experiments",
    metadata,
    Column("name", String, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("stopped", BigInteger),
    Column("promoted", String),
)
models = Table(
    "models",
    metadata,
    Column("name", String, primary_key=True),
    Column("path", String, nullable=False),
    Column("version", String, nullable=False),
    Column("in_place_of", String, nullable=False),
    Column("rules", Text, nullable=False),
)
keys = Table(
    "keys",
    metadata,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("created", BigInteger, nullable=False),
)
forgotten = Table(
    "forgotten",
    metadata,
    Column("user_digest", String, primary_key=True),
    Column("revision", BigInteger, nullable=False, index=True),
)
state = Table("state", metadata, Column("name", String, primary_key=True), Column("value", String, nullable=False))

POSTGRESQL = {
    "pool_pre_ping": True,
    "pool_timeout": 5,
    # A server that does not answer must not hold the thread that answers everybody.
    "connect_args": {"connect_timeout": 3, "tcp_user_timeout": 4000, "options": "-c statement_timeout=30000"},
}
DELETIONS = 7214206
"""Number of the lock that somebody's deletion holds alone, and those who write lists share."""
REVISION = "revision"
"""Counts the changes that every instance has to know before it answers: items, experiments, models, keys, deletions."""


class DatabaseError(RecloomError):
    """The database could not be reached or could not write; what was acknowledged before is safe."""


class Database:
    """An open database, with its tables."""

    def __init__(self, url: str) -> None:
        """Open a database, and make the tables it lacks.

        Args:
            url: `sqlite:///FILE`, a path, or `postgresql://USER:PASSWORD@HOST/NAME`.

        Raises:
            ConfigError: The address is none of these.
            DatabaseError: It cannot be reached.
        """
        self.url = _spelled(url)
        self.is_sqlite = self.url.startswith("sqlite")
        if self.is_sqlite:
            Path(self.url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            options: dict[str, Any] = {} if self.is_sqlite else POSTGRESQL
            self.engine: Engine = create_engine(self.url, **options)
        except ModuleNotFoundError:
            raise MissingExtraError("serve", "PostgreSQL") from None
        except (NoSuchModuleError, SQLAlchemyError, ValueError) as error:
            what = type(error).__name__
            raise ConfigError(
                f"the database address cannot be used ({what}); write postgresql://USER@HOST/NAME"
            ) from None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _durable_and_shared)
        with self.transaction() as connection:
            if not self.is_sqlite:
                # Instances that start together would make the tables at once.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7214205)")
            metadata.create_all(connection)
            self.ignoring(connection, state, [{"name": REVISION, "value": "0"}])

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give a connection whose changes are on disk when the block ends, all of them or none.

        Raises:
            DatabaseError: The database could not be reached or could not write.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            log.warning("database failed", extra={"reason": type(error.orig).__name__})
            raise DatabaseError(_reason(error)) from error
        except SQLAlchemyError as error:
            raise DatabaseError(f"the database does not answer ({type(error).__name__})") from error

    def ignoring(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Insert rows, leaving alone what has their key already."""
        insert_into = sqlite_insert if self.is_sqlite else postgresql_insert
        if rows:
            connection.execute(insert_into(table).on_conflict_do_nothing(), rows)

    def replacing(self, connection: Connection, table: Table, row: dict[str, Any]) -> None:
        """Insert a row, in the place of the one that has its key."""
        insert_into = sqlite_insert if self.is_sqlite else postgresql_insert
        key = [column.name for column in table.primary_key]
        statement = insert_into(table).values(row)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=key, set_={name: statement.excluded[name] for name in row if name not in key}
            )
        )

    def lock_deletions(self, connection: Connection, *, is_shared: bool) -> None:
        """Keep deletions and those who write lists apart until the transaction ends, which this has to begin."""
        if self.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # one writes at a time anyway
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{'_shared' * is_shared}({DELETIONS})")

    def next_revision(self, connection: Connection) -> int:
        """Count a change that every instance has to know, and return its number."""
        connection.execute(
            update(state)
            .where(state.c.name == REVISION)
            .values(value=cast(cast(state.c.value, BigInteger) + 1, String))
        )
        return int(connection.execute(select(state.c.value).where(state.c.name == REVISION)).scalar_one())

    def secret(self, name: str, fresh: str) -> str:
        """Return a value that all instances share: the one that is stored, else a fresh one, which then is."""
        with self.transaction() as connection:
            self.ignoring(connection, state, [{"name": name, "value": fresh}])
            return str(connection.execute(select(state.c.value).where(state.c.name == name)).scalar_one())

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()


def without_password(url: str) -> str:
    """Return an address that may be shown."""
    return make_url(url).render_as_string(hide_password=True) if "://" in url else url


def _spelled(url: str) -> str:
    if url.startswith(("postgresql://", "postgres://")):
        return "postgresql+psycopg://" + url.split("://", 1)[1]
    return url if "://" in url else f"sqlite:///{Path(url).absolute()}"


def _durable_and_shared(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged event survives the loss of power
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.execute("PRAGMA secure_delete=ON")  # what was deleted is overwritten
    cursor.close()


def _reason(error: DBAPIError) -> str:
    """Say what went wrong without what only the log may tell: hosts, users, values."""
    if error.orig and "full" in str(error.orig):
        return "the disk is full, so nothing was written; free some space, what was acknowledged before is safe"
    return f"the database does not answer ({type(error).__name__}); what was acknowledged before is safe"
