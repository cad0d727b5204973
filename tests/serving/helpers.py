"""What tests of services say again and again."""

import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select
from starlette.testclient import TestClient

from recloom.serving import database as tables
from recloom.serving.store import Event, Exposure, Store

ITEMS, USERS = 24, 30
EXPIRED = 5
CATEGORIES = ("book", "film", "book|film")


def post(client: TestClient, *events: dict[str, Any]) -> dict[str, Any]:
    """Send events and return the answer."""
    answer = client.post("/v1/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    """Ask for a list and return the whole answer."""
    answer = client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    """Return the items of a list."""
    return [place["item_id"] for place in answer["items"]]


def asked_ids(client: TestClient, **body: Any) -> list[str]:
    """Ask for a list and return its items."""
    return ids(ask(client, **body))


def problem(answer: Any, status: int, words: str) -> None:
    """Make sure that an answer is a problem which says something."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert words in body["detail"], body["detail"]


def wait_until(is_so: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def event(event_id: str, user: str, item: str, **more: Any) -> dict[str, Any]:
    """Return an event as the interface takes it."""
    return {"event_id": event_id, "user_id": user, "item_id": item, **more}


def history_of(steps: Sequence[int]) -> list[str]:
    """Return the items of some steps of the circle."""
    return [f"i{step % ITEMS:02}" for step in steps]


def count_of(store: Store, table: Any, user: str) -> int:
    """Return how many rows of a table are about somebody."""
    with store.database.transaction() as connection:
        return connection.execute(select(func.count()).where(table.c.user_id == user)).scalar_one()


def shown_to(user: str, revision: int) -> Exposure:
    """Return a list that somebody was shown when so much was known."""
    return Exposure(uuid.uuid4().hex, user, 1_000, None, None, False, "default", "v", "weave", ["i1"], revision)


def delete_while_another_writes(one: Store, other: Store) -> None:
    """Delete somebody by one instance, of whom another has yet to write what was before; nothing of it may stay."""
    for _ in range(2):  # also when somebody came back and is deleted again
        late = [shown_to("ann", other.revision()), shown_to("eve", other.revision())]
        one.forget("ann")
        other.add((), late).result(5)
        assert count_of(one, tables.recommendations, "ann") == 0
        other.add((), [shown_to("ann", other.revision())]).result(5)  # who comes back is somebody new
        other.add([Event(uuid.uuid4().hex, "ann", "i1", 1_000, "view")]).result(5)
        assert count_of(one, tables.recommendations, "ann") == count_of(one, tables.events, "ann") == 1
    assert count_of(one, tables.recommendations, "eve") == 2
    for _ in range(100):  # at the very moment
        late = [shown_to("ann", other.revision()) for _ in range(20)]
        written = [other.add((), [exposure]) for exposure in late]
        one.forget("ann")
        assert [future.result(5) for future in written] == [None] * 20
        assert count_of(one, tables.recommendations, "ann") == 0
