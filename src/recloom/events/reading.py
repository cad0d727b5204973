"""A log, its catalogue and its users, read together."""

from collections.abc import Mapping, Sequence

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
    of_log, of_items, of_users = mappings(headers_of(interactions) if columns else [], items, users, columns)
    return (
        read_interactions(interactions, columns=of_log, cleaning=cleaning),
        read_items(items, columns=of_items) if items else None,
        read_users(users, columns=of_users) if users else None,
    )


def mappings(
    log_header: Sequence[str], items: Source | None, users: Source | None, columns: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Return what the caller says of the columns of the log, of the catalogue and of the users.

    Raises:
        DataError: A column of `columns` is in none of them.
    """
    headers = [log_header, *(headers_of(source) if columns and source else [] for source in (items, users))]
    check_mapping(columns, headers)
    of_log, of_items, of_users = ({n: c for n, c in columns.items() if c in header} for header in headers)
    return of_log, of_items, of_users


def headers_of(source: Source) -> list[str]:
    """Return the columns of files, as the files name them."""
    return [name for path in find_files(source) for name in header_of(open_table(path))]
