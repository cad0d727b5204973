"""Datasets of some users each -> the dataset of them all, a piece at a time, so that it need not fit into memory.

There may be more parts than a process may have files open, and all of them know most items: one is open at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from recloom.dataset.dataset import FILE_NAME, VALUES_AT_ONCE, Dataset, aligned, fingerprint_of, new_file
from recloom.dataset.tables import write_table
from recloom.dataset.text_storage import concatenate_texts, read_texts
from recloom.dataset.vocabulary import Vocabulary
from recloom.errors import ArtifactError
from recloom.events import Entities
from recloom.files import replacing


def assemble(
    parts: Sequence[Path],
    out: Path,
    items: Entities | None = None,
    users: Entities | None = None,
    *,
    pseudonym_key_id: str = "",
) -> Dataset:
    """Put datasets together that were made without a catalogue; what comes out is what one of all rows would have been.

    Args:
        parts: Folders of datasets. Nobody is in two of them, and the users of one come after those of the one before.
        out: The folder to write `dataset.h5` to.
        items: The catalogue.
        users: What is known of the users.
        pseudonym_key_id: Names the key that user ids are pseudonyms of.

    Raises:
        ArtifactError: A part is damaged, or users are not in order.
    """
    catalogue = items.table if items else pl.DataFrame(schema={"item_id": pl.String})
    each = _Parts([part / FILE_NAME for part in parts])
    size = sum(path.stat().st_size for path in each.paths) + int(catalogue.estimated_size())
    num_interactions = sum(int(part.attrs["num_interactions"]) for part in each)
    item_vocabulary = _all_words((part["item_ids"] for part in each), first=catalogue["item_id"].to_list())
    path = out / FILE_NAME
    with replacing(path) as beside, new_file(beside, size, num_interactions, pseudonym_key_id) as file:
        item_vocabulary.write(file, "item_ids")
        write_table(file, "items", aligned(catalogue, item_vocabulary.ids, "item_id"))
        _write_users(file, each, users)
        events = file.create_group("events")
        _write_recoded(events, "item_index", each, "events/item_index", _codes("item_ids", item_vocabulary))
        context = file.create_group("context", track_order=True)
        with _opened(each.paths[0]) as first:
            in_events, in_context = list(first["events"]), list(first["context"])
        for name in ("timestamp", "weight"):
            if name in in_events:
                _write_recoded(events, name, each, f"events/{name}")
        for name in in_context:
            _write_context(context.create_group(name), each, f"context/{name}")
        file.attrs["fingerprint"] = fingerprint_of(file)
    return Dataset(path)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read as a part of a dataset ({error}); prepare it again") from None
    with file:
        yield file


@dataclass(frozen=True)
class _Parts:
    """Files that are gone through as often as one wants, each of them open while it is looked at."""

    paths: list[Path]

    def __iter__(self) -> Iterator[h5py.File]:
        for path in self.paths:
            with _opened(path) as file:
                yield file


def _all_words(parts: Iterable[h5py.Group], first: Sequence[str] = ()) -> Vocabulary:
    words: set[str] = set()
    for part in parts:
        words.update(read_texts(part))
    return Vocabulary([*first, *sorted(words.difference(first))])


def _codes(key: str, vocabulary: Vocabulary) -> Callable[[h5py.File], np.ndarray]:
    """Return what gives, of a part, the vocabulary's code of each of its own codes."""
    return lambda part: np.concatenate([[0], vocabulary.indices_of(read_texts(part[key]))]).astype(np.int32)


def _write_users(file: h5py.File, parts: _Parts, users: Entities | None) -> None:
    _check_order(parts)
    concatenate_texts(file, "user_ids", parts, "user_ids")
    if users is None:
        concatenate_texts(file.create_group("users", track_order=True), "user_id", parts, "user_ids")
    else:
        ids = pl.concat([pl.Series(read_texts(part["user_ids"]), dtype=pl.String) for part in parts])
        write_table(file, "users", aligned(users.table, ids, "user_id"))
    lengths = [np.diff(part["user_offsets"][1:]) for part in parts]  # the padding index has none
    file["user_offsets"] = np.concatenate([[0, 0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)


def _check_order(parts: _Parts) -> None:
    last = ""
    for part in parts:
        ids = read_texts(part["user_ids"])
        if not last < ids[0]:
            raise ArtifactError(f"{part.filename} begins with the user {ids[0]!r}, who does not come after {last!r}")
        last = ids[-1]


def _write_context(group: h5py.Group, parts: _Parts, key: str) -> None:
    with _opened(parts.paths[0]) as first:
        is_coded = "vocabulary" in first[key]
    if not is_coded:
        _write_recoded(group, "values", parts, f"{key}/values")
        return
    vocabulary = _all_words(part[f"{key}/vocabulary"] for part in parts)
    _write_recoded(group, "values", parts, f"{key}/values", _codes(f"{key}/vocabulary", vocabulary))
    vocabulary.write(group, "vocabulary")


def _write_recoded(
    group: h5py.Group,
    name: str,
    parts: _Parts,
    key: str,
    codes_of: Callable[[h5py.File], np.ndarray] | None = None,
) -> None:
    """Write the arrays that parts hold under a key one after the other, in codes of our own if there are any."""
    with _opened(parts.paths[0]) as first:
        dtype = first[key].dtype
    target = group.create_dataset(name, (sum(len(part[key]) for part in parts),), dtype)
    at = 0
    for part in parts:
        codes = codes_of(part) if codes_of else None
        for begin in range(0, len(part[key]), VALUES_AT_ONCE):
            values = part[key][begin : begin + VALUES_AT_ONCE]
            target[at : at + len(values)] = values if codes is None else codes[values]
            at += len(values)
