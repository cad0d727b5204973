"""Everything a service has to remember, behind questions and commands in its own words.

Reading is direct. Events and exposures are written by one thread that commits whatever waits as one transaction, so
that many small requests share one write to the disk.
"""

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from sqlalchemy import Connection, delete, func, insert, or_, select, update
from sqlalchemy.exc import DataError, IntegrityError

from recloom.config import suggestion
from recloom.errors import ConfigError
from recloom.serving import database as tables
from recloom.serving.database import REVISION, Database, DatabaseError

ROLES = ("ingest", "recommend", "admin")
"""What the holders of keys may do."""
MOST_EVENTS = 10_000
"""Newest live events of a person that are read."""
MOST_LISTS = 10_000
"""Newest lists among which the causes of the events of one transaction are looked for."""
LINGER_SECONDS = 0.02
"""How long a list that was shown waits to be written together with others."""
MOST_WRITTEN = 2_000
"""Rows of a table written or removed in one transaction."""


@dataclass(frozen=True)
class Event:
    """One thing that somebody did, as it is stored."""

    event_id: str
    user_id: str
    item_id: str
    timestamp: int
    behavior: str
    value: float | None = None
    recommendation_id: str | None = None
    context: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Exposure:
    """One list that somebody was shown, or that a shadow would have shown."""

    recommendation_id: str
    user_id: str | None
    served: int
    experiment: str | None
    variant: str | None
    is_shadow: bool
    model: str
    version: str
    served_by: str
    item_ids: Sequence[str]
    revision: int
    """What was known when it was made: of somebody who was deleted since, it is not kept."""


@dataclass(frozen=True)
class ItemChange:
    """What became of an item at run time."""

    item_id: str
    columns: Mapping[str, Any]
    is_withdrawn: bool
    revision: int


@dataclass(frozen=True)
class ModelEntry:
    """Where a model is."""

    path: str
    version: str
    in_place_of: str
    """The folder that the service had been started with: started with another one, that one counts."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """What its lists obey as well, where a variant with rules of its own was promoted."""


@dataclass(frozen=True)
class Shared:
    """What every instance has to know before it answers, as of one revision."""

    revision: int
    forgotten: Collection[str]
    """Digests of who was forgotten since the revision that was asked about."""
    keys: Mapping[str, tuple[str, str]]
    """Role and name of a key by its digest."""
    experiments: Sequence[Mapping[str, Any]]
    """The newest first: `definition`, `started`, `stopped`, `promoted`."""
    models: Mapping[str, "ModelEntry"]
    """Where each model is that was loaded or promoted at run time, by name."""
    items: Sequence[ItemChange]
    """Items changed since the revision that was asked about."""


class QueueFullError(Exception):
    """More is waiting to be written than the service wants to hold."""


class Store:
    """The memory of a service."""

    def __init__(self, database: Database, *, queue: int = 20_000, attribution_seconds: float = 86_400.0) -> None:
        self.database = database
        self._attribution = int(attribution_seconds)
        self._queue_limit = queue
        self._waiting: deque[_Job] = deque()
        self._num_waiting = 0
        self._wake = threading.Condition()
        self._is_urgent = False
        self._stopped = False
        self._salt = database.secret("salt", secrets.token_hex(16)).encode()
        self._writer = threading.Thread(target=self._write_forever, name="recloom-writer", daemon=True)
        self._writer.start()

    # Events and exposures

    def add(self, events: Sequence[Event], exposures: Sequence[Exposure] = ()) -> "Future[None]":
        """Have events and exposures written; the future is done when they are on disk.

        Raises:
            QueueFullError: Too much is waiting already.
        """
        job = _Job(events, exposures)
        with self._wake:
            if self._stopped:
                raise QueueFullError
            if self._num_waiting + job.size > self._queue_limit:
                raise QueueFullError
            self._waiting.append(job)
            self._num_waiting += job.size
            if events:  # somebody waits for them; lists that were shown can wait for company
                self._is_urgent = True
                self._wake.notify()
        return job.done

    @property
    def num_waiting(self) -> int:
        """Events and exposures that wait to be written."""
        return self._num_waiting

    def look(self, user_ids: Iterable[str]) -> tuple[int, dict[str, list[Event]]]:
        """Return the number of the last shared change, and the live events of some people.

        Returns:
            The revision; and each person's events, oldest first, the newest `MOST_EVENTS` of them.
        """
        wanted = sorted(set(user_ids))
        found: dict[str, list[Event]] = {user: [] for user in wanted}
        table = tables.events.c
        columns = (table.user_id, table.item_id, table.timestamp, table.behavior, table.context)
        # One question for both: this stands before every list.
        newest = (
            _REVISION.add_columns(*columns)
            .select_from(tables.state.outerjoin(tables.events, table.user_id.in_(wanted)))
            .order_by(table.user_id, table.timestamp.desc(), table.sequence.desc())
            .limit(MOST_EVENTS)
        )
        with self.database.transaction() as connection:
            rows = connection.execute(newest).all()
            revision = int(rows[0][0])
            if len(rows) == MOST_EVENTS and len(wanted) > 1:
                rows = [row for user in wanted for row in connection.execute(newest.where(table.user_id == user))]
        for _, user, item, timestamp, behavior, context in reversed(rows):
            if user is not None:
                found[user].append(Event("", user, item, timestamp, behavior, context=_context(context)))
        return revision, found

    def popularity(self, since: int, weights: Mapping[str, float]) -> dict[str, float]:
        """Return how much was done with each item since a time, weighted by behaviour."""
        table = tables.events.c
        counted = (
            select(table.item_id, table.behavior, func.count())
            .where(table.timestamp >= since)
            .group_by(table.item_id, table.behavior)
        )
        totals: dict[str, float] = defaultdict(float)
        with self.database.transaction() as connection:
            for item, behavior, count in connection.execute(counted):
                totals[item] += max(0.0, weights.get(behavior, 1.0)) * count
        return dict(totals)

    # What all instances share

    def revision(self) -> int:
        """Return the number of the last change that every instance has to know."""
        with self.database.transaction() as connection:
            return int(connection.execute(_REVISION).scalar_one())

    def shared(self, since: int) -> Shared:
        """Return what every instance has to know, people and items as far as they changed after a revision."""
        with self.database.transaction() as connection:
            return Shared(
                int(connection.execute(_REVISION).scalar_one()),
                _forgotten_since(connection, since).keys(),
                {row.digest: (row.role, row.name) for row in connection.execute(select(tables.keys))},
                [
                    {"definition": json.loads(row.definition), "started": row.started, "stopped": row.stopped,
                     "promoted": row.promoted}
                    for row in connection.execute(select(tables.experiments).order_by(
                        tables.experiments.c.started.desc()))
                ],
                {
                    row.name: ModelEntry(row.path, row.version, row.in_place_of, json.loads(row.rules))
                    for row in connection.execute(select(tables.models))
                },
                _items_since(connection, since),
            )  # fmt: skip

    def items(self, since: int) -> tuple[int, list[ItemChange]]:
        """Return the number of the last shared change, and the items that changed after a revision."""
        with self.database.transaction() as connection:
            return int(connection.execute(_REVISION).scalar_one()), _items_since(connection, since)

    def collected(self, unread: Collection[str] = ()) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return what a model can learn: a log of events, and a catalogue of the items put at run time.

        Both have the columns that files of them have: the context of an event and what an item says, each by its name.

        Args:
            unread: Behaviours that are left out.
        """
        table = tables.events.c
        columns = (table.user_id, table.item_id, table.timestamp, table.behavior, table.context)
        with self.database.transaction() as connection:
            rows = connection.execute(
                select(*columns).where(table.behavior.not_in(unread)).order_by(table.sequence)
            ).all()
            changes = _items_since(connection, 0)
        events = [
            {
                **_words(_context(context)),
                "user_id": user,
                "item_id": item,
                "timestamp": timestamp,
                "behavior": behavior,
            }
            for user, item, timestamp, behavior, context in rows
        ]
        items = [{**_words(change.columns), "item_id": change.item_id} for change in changes if not change.is_withdrawn]
        return pl.DataFrame(events, infer_schema_length=None), pl.DataFrame(items, infer_schema_length=None)

    def held_on(self, user_id: str) -> dict[str, list[dict[str, Any]]]:
        """Return all that is stored of somebody: what they did, and the lists they were shown."""
        with self.database.transaction() as connection:
            return {
                name: [
                    dict(row._mapping) for row in connection.execute(select(table).where(table.c.user_id == user_id))
                ]
                for name, table in (("events", tables.events), ("recommendations", tables.recommendations))
            }

    def forgotten_among(self, user_ids: Iterable[str]) -> list[str]:
        """Return which of some people the service was told to forget."""
        forgotten = self.shared(0).forgotten
        return [user for user in user_ids if self.digest_of(user) in forgotten]

    def change_item(self, item_id: str, columns: Mapping[str, Any] | None) -> int:
        """Put an item, or withdraw it where there are no columns; return the revision from which everybody knows."""
        with self.database.transaction() as connection:
            revision = self.database.next_revision(connection)
            if columns is None:
                old = connection.execute(
                    select(tables.items.c.columns).where(tables.items.c.item_id == item_id)
                ).scalar_one_or_none()
                spelled, is_withdrawn = old or "{}", True
            else:
                spelled, is_withdrawn = json.dumps(columns, ensure_ascii=False), False
            row = {"item_id": item_id, "columns": spelled, "is_withdrawn": is_withdrawn, "revision": revision}
            self.database.replacing(connection, tables.items, row)
        return revision

    def put_model(self, name: str, entry: ModelEntry) -> None:
        """Say where a model is, for every instance to load it."""
        with self.database.transaction() as connection:
            self.database.next_revision(connection)
            self._put_model(connection, name, entry)

    def remove_model(self, name: str) -> None:
        """Have every instance let go of a model that was loaded at run time."""
        with self.database.transaction() as connection:
            self.database.next_revision(connection)
            connection.execute(delete(tables.models).where(tables.models.c.name == name))

    def _put_model(self, connection: Any, name: str, entry: ModelEntry) -> None:
        row = {"name": name, **entry.__dict__, "rules": json.dumps(entry.rules)}
        self.database.replacing(connection, tables.models, row)

    def start_experiment(self, definition: Mapping[str, Any], now: int) -> bool:
        """Keep a new experiment; False where the name is taken or another one runs."""
        table = tables.experiments
        with self.database.transaction() as connection:
            self.database.next_revision(connection)  # takes the lock that makes two starts one after the other
            taken = select(func.count()).where(or_(table.c.name == definition["name"], table.c.stopped.is_(None)))
            if connection.execute(taken.select_from(table)).scalar_one():
                return False
            row = {"name": definition["name"], "definition": json.dumps(definition), "started": now}
            connection.execute(insert(table).values(row))
        return True

    def stop_experiment(self, name: str, now: int, promoted: tuple[str, str, ModelEntry] | None = None) -> None:
        """End an experiment, for good.

        Args:
            name: Which one.
            now: UTC seconds.
            promoted: The variant that won, and the model that is served from now on, by name.
        """
        table = tables.experiments
        with self.database.transaction() as connection:
            self.database.next_revision(connection)
            ended = update(table).where(table.c.name == name, table.c.stopped.is_(None)).values(stopped=now)
            connection.execute(ended)
            if promoted is not None:
                variant, model, entry = promoted
                connection.execute(update(table).where(table.c.name == name).values(promoted=variant))
                self._put_model(connection, model, entry)

    # People

    def digest_of(self, user_id: str) -> str:
        """Return what is kept of somebody who was forgotten, so that nothing of them is used: no way leads back."""
        return hmac.new(self._salt, user_id.encode(), hashlib.sha256).hexdigest()

    def forget(self, user_id: str) -> dict[str, int]:
        """Remove all that is stored about somebody, and say how much it was."""
        self.add(()).result()  # what waits is written first, so that it is removed as well
        removed = {}
        with self.database.transaction() as connection:
            self.database.lock_deletions(connection, is_shared=False)
            revision = self.database.next_revision(connection)
            for name, table in (("events", tables.events), ("recommendations", tables.recommendations)):
                gone = connection.execute(delete(table).where(table.c.user_id == user_id))
                removed[name] = gone.rowcount
            row = {"user_digest": self.digest_of(user_id), "revision": revision}
            self.database.replacing(connection, tables.forgotten, row)
        return removed

    def remove_before(self, time_: int) -> int:
        """Remove events and recommendations older than a time, `MOST_WRITTEN` of each at most; say how many.

        No more, because nothing else is written meanwhile: to be called again until there are none.
        """
        removed = 0
        for table, told in ((tables.events, "timestamp"), (tables.recommendations, "served")):
            key, age = table.primary_key.columns[0], table.c[told]
            oldest = select(key).where(age < time_).order_by(age).limit(MOST_WRITTEN)
            with self.database.transaction() as connection:
                removed += connection.execute(delete(table).where(key.in_(oldest))).rowcount
        return removed

    # Keys

    def add_key(self, name: str, role: str) -> str | None:
        """Make a key and return it, the only time it is seen; None where the name is taken.

        Raises:
            ConfigError: There is no such role.
        """
        if role not in ROLES:
            raise ConfigError(f"there is no role {role!r}; {suggestion(role, ROLES)}")
        key = f"rl_{secrets.token_urlsafe(32)}"
        row = {"name": name, "role": role, "digest": key_digest(key), "created": int(time.time())}
        with self.database.transaction() as connection:
            self.database.next_revision(connection)
            taken = connection.execute(select(func.count()).where(tables.keys.c.name == name)).scalar_one()
            if taken:
                return None
            connection.execute(insert(tables.keys).values(row))
        return key

    def remove_key(self, name: str) -> bool:
        """Make a key worthless; False where there is none of that name."""
        with self.database.transaction() as connection:
            self.database.next_revision(connection)
            return connection.execute(delete(tables.keys).where(tables.keys.c.name == name)).rowcount > 0

    def list_keys(self) -> list[tuple[str, str, int]]:
        """Return name, role and time of making of every key."""
        with self.database.transaction() as connection:
            rows = connection.execute(select(tables.keys).order_by(tables.keys.c.name))
            return [(row.name, row.role, row.created) for row in rows]

    # Experiments

    def outcomes(self, experiment: str, window: int) -> list[tuple[Any, ...]]:
        """Return what came of each recommendation of an experiment, for whoever was shown it.

        Returns:
            Variant, user, time, behaviour (None where nothing came of it) and the summed value, one row a
            recommendation and behaviour.
        """
        shown, acted = tables.recommendations.c, tables.events.c
        joined = tables.recommendations.outerjoin(
            tables.events,
            (acted.recommendation_id == shown.recommendation_id)
            & or_(shown.user_id.is_(None), acted.user_id == shown.user_id)
            & (acted.timestamp >= shown.served - 1)
            & (acted.timestamp <= shown.served + window),
        )
        asked = (
            select(shown.variant, shown.user_id, shown.served, shown.recommendation_id, acted.behavior,
                   func.sum(acted.value))
            .select_from(joined)
            .where(shown.experiment == experiment, ~shown.is_shadow)
            .group_by(shown.variant, shown.user_id, shown.served, shown.recommendation_id, acted.behavior)
        )  # fmt: skip
        with self.database.transaction() as connection:
            return [tuple(row) for row in connection.execute(asked)]

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._writer.join(timeout=30)
        self.database.close()

    # Writing

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                while not self._is_urgent and not self._stopped:
                    if not self._wake.wait(LINGER_SECONDS) and self._waiting:
                        break
                if not self._waiting:
                    if self._stopped:
                        return
                    continue
                jobs, size = [], 0
                while self._waiting and size < MOST_WRITTEN:
                    job = self._waiting.popleft()
                    size += job.size
                    if job.done.set_running_or_notify_cancel():  # else whoever waited has been told to try again
                        jobs.append(job)
                self._num_waiting -= size
                self._is_urgent = bool(self._waiting)
            self._settle(jobs)

    def _settle(self, jobs: "Sequence[_Job]") -> None:
        """Write what some jobs hold and tell those who wait."""
        try:
            self._write(jobs)
        except Exception as error:  # whatever it was, those who wait are told and the next ones get their turn
            is_deadlock = "deadlock" in str(error.__cause__).lower()
            if len(jobs) > 1 and (is_deadlock or isinstance(error.__cause__, DataError | IntegrityError)):
                # One of them cannot be stored, or is being written by another instance too; the others can.
                for job in jobs:
                    self._settle([job])
                return
            failure = error if isinstance(error, DatabaseError) else DatabaseError("writing failed; nothing was kept")
            for job in jobs:
                job.done.set_exception(failure)
        else:
            for job in jobs:
                job.done.set_result(None)

    def _write(self, jobs: "Sequence[_Job]") -> None:
        received = int(time.time())
        events = [event for job in jobs for event in job.events]
        exposures = [exposure for job in jobs for exposure in job.exposures]
        with self.database.transaction() as connection:
            if exposures:
                self.database.lock_deletions(connection, is_shared=True)
                exposures = self._without_forgotten(connection, exposures)
                self.database.ignoring(connection, tables.recommendations, [_exposure_row(e) for e in exposures])
            cause = self._causes(connection, events)
            self.database.ignoring(
                connection, tables.events, [_event_row(event, received, cause(event)) for event in events]
            )

    def _without_forgotten(self, connection: Connection, exposures: Sequence[Exposure]) -> list[Exposure]:
        """Leave out lists that were made before their person was deleted, on whichever instance."""
        forgotten = _forgotten_since(connection, min(exposure.revision for exposure in exposures))
        if not forgotten:
            return list(exposures)
        return [
            exposure
            for exposure in exposures
            if exposure.user_id is None or forgotten.get(self.digest_of(exposure.user_id), 0) <= exposure.revision
        ]

    def _causes(self, connection: Any, events: Sequence[Event]) -> Callable[[Event], str | None]:
        """Return the way from an event to the newest list that showed its item to the same person shortly before."""
        shown = tables.recommendations.c
        lists: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        if events:
            earliest = min(event.timestamp for event in events) - self._attribution
            recent = (
                select(shown.user_id, shown.served, shown.recommendation_id, shown.item_ids)
                .where(shown.user_id.in_({event.user_id for event in events}), ~shown.is_shadow)
                .where(shown.served >= earliest)
                .order_by(shown.served.desc())
                .limit(MOST_LISTS)
            )
            for user, served, id_, item_ids in connection.execute(recent):
                lists[user].append((served, id_, item_ids))

        def cause(event: Event) -> str | None:
            spelled, named = json.dumps(event.item_id), event.recommendation_id
            for served, id_, item_ids in lists[event.user_id]:
                if named in (None, id_):
                    if served - 1 <= event.timestamp <= served + self._attribution and spelled in item_ids:
                        return id_
                    if named is not None:
                        return None
            return named  # nobody's, or one that another instance is about to write

        return cause


@dataclass
class _Job:
    events: Sequence[Event]
    exposures: Sequence[Exposure]
    done: "Future[None]" = field(default_factory=Future)

    @property
    def size(self) -> int:
        return len(self.events) + len(self.exposures)


def has_keys(address: str) -> bool:
    """Whether the service with this database has any keys."""
    database = Database(address)
    with database.transaction() as connection:
        count = connection.execute(select(func.count()).select_from(tables.keys)).scalar_one()
    database.close()
    return bool(count)


def key_digest(key: str) -> str:
    """Return what is stored of a key. It is random and long, so that one round of a hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def _event_row(event: Event, received: int, cause: str | None) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "timestamp": event.timestamp,
        "behavior": event.behavior,
        "value": event.value,
        "context": json.dumps(event.context, ensure_ascii=False) if event.context else None,
        "received": received,
        "recommendation_id": cause,
    }


def _context(spelled: str | None) -> dict[str, Any]:
    return dict(json.loads(spelled)) if spelled else {}


def _words(columns: Mapping[str, Any]) -> dict[str, str]:
    """Spell values as a file would, which knows no types."""
    return {name: str(value) for name, value in columns.items() if value is not None}


def _exposure_row(exposure: Exposure) -> dict[str, Any]:
    row = {**exposure.__dict__, "item_ids": json.dumps(list(exposure.item_ids))}
    del row["revision"]
    return row


def _forgotten_since(connection: Connection, revision: int) -> dict[str, int]:
    """Return the digests of who was forgotten after a revision, each with its own."""
    table = tables.forgotten.c
    rows = connection.execute(select(table.user_digest, table.revision).where(table.revision > revision))
    return {row.user_digest: row.revision for row in rows}


def _items_since(connection: Connection, revision: int) -> list[ItemChange]:
    table = tables.items.c
    changed = connection.execute(select(tables.items).where(table.revision > revision).order_by(table.revision))
    return [ItemChange(row.item_id, json.loads(row.columns), row.is_withdrawn, row.revision) for row in changed]


_REVISION = select(tables.state.c.value).where(tables.state.c.name == REVISION)
