"""A service's database, for the commands that look into it from outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recloom.errors import MissingExtraError

if TYPE_CHECKING:
    from recloom.serving.store import Store


def default_database(model: Path) -> Path:
    """Return the file beside a model folder that its service remembers things in."""
    # Beside it and not inside, because fitting anew replaces the folder.
    return model.with_name(f"{model.name}.live.db")


def database_of(model: Path, address: str | None) -> str | None:
    """Return the address of a model's service: the one that is given, else the file beside it, if there is one."""
    if address is None and default_database(model).exists():
        return str(default_database(model))
    return address


@contextmanager
def opened_store(address: str, what_for: str) -> "Iterator[Store]":
    """Open a service's database for a while.

    Args:
        address: As for `recloom serve`.
        what_for: What needs the extra `serve`, for the message where it is missing.
    """
    try:
        from recloom.serving.database import Database
        from recloom.serving.store import Store
    except ImportError as error:
        raise MissingExtraError("serve", what_for) from error
    store = Store(Database(address))
    try:
        yield store
    finally:
        store.close()
