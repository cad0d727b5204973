"""A log, its catalogue and its users, read together."""

from collections.abc import Mapping

from recloom.events.cleaning import CleaningConfig
from recloom.events.dialects import check_mapping
from recloom.events.entities import read_items, read_users
from recloom.events.interactions import read_interactions
from recloom.events.sources import Source, find_files, open_table
from recloom.events.tables import Entities, Interactions, header_of


def read_tables(
    interactions: Source,
    items: Source | None = None,
    users: Source | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    cleaning: CleaningConfig | None = None,
) -> tuple[Interactions, Entities | None, Entities | None]:
    """Read a log, its catalogue and its users, each column of `columns` being looked for in all of them.

    Raises:
        DataError: A file cannot be used, or a column of `columns` is in none of them.
    """
    columns = columns or {}
    headers = [_headers(source) if columns and source else [] for source in (interactions, items, users)]
    check_mapping(columns, headers)
    of_log, of_items, of_users = ({n: c for n, c in columns.items() if c in header} for header in headers)
    return (
        read_interactions(interactions, columns=of_log, cleaning=cleaning),
        read_items(items, columns=of_items) if items else None,
        read_users(users, columns=of_users) if users else None,
    )


def _headers(source: Source) -> list[str]:
    return [name for path in find_files(source) for name in header_of(open_table(path))]
