"""Datasets of some users each -> the dataset of them all, a piece at a time, so that it need not fit into memory."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(part / FILE_NAME)) for part in parts]
        size = sum((part / FILE_NAME).stat().st_size for part in parts) + int(catalogue.estimated_size())
        num_interactions = sum(int(file.attrs["num_interactions"]) for file in files)
        own = [read_texts(file["item_ids"]) for file in files]
        item_vocabulary = _all_words(own, first=catalogue["item_id"].to_list())
        path = out / FILE_NAME
        with replacing(path) as beside, new_file(beside, size, num_interactions, pseudonym_key_id) as file:
            item_vocabulary.write(file, "item_ids")
            write_table(file, "items", aligned(catalogue, item_vocabulary.ids, "item_id"))
            _write_users(file, files, users)
            events = file.create_group("events")
            codes = [np.concatenate([[0], item_vocabulary.indices_of(words)]).astype(np.int32) for words in own]
            _write_recoded(events, "item_index", [part["events/item_index"] for part in files], codes)
            for name in ("timestamp", "weight"):
                if name in files[0]["events"]:
                    _write_recoded(events, name, [part["events"][name] for part in files], None)
            context = file.create_group("context", track_order=True)
            for name in files[0]["context"]:
                _write_context(context.create_group(name), [part["context"][name] for part in files])
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


def _all_words(parts: Sequence[Sequence[str]], first: Sequence[str] = ()) -> Vocabulary:
    known = set(first)
    return Vocabulary([*first, *sorted({word for words in parts for word in words if word not in known})])


def _write_users(file: h5py.File, parts: Sequence[h5py.File], users: Entities | None) -> None:
    _check_order(parts)
    ids = [part["user_ids"] for part in parts]
    concatenate_texts(file, "user_ids", ids)
    if users is None:
        concatenate_texts(file.create_group("users", track_order=True), "user_id", ids)
    else:
        table = pl.Series([id_ for group in ids for id_ in read_texts(group)], dtype=pl.String)
        write_table(file, "users", aligned(users.table, table, "user_id"))
    lengths = [np.diff(part["user_offsets"][1:]) for part in parts]  # the padding index has none
    file["user_offsets"] = np.concatenate([[0, 0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)


def _check_order(parts: Sequence[h5py.File]) -> None:
    last = ""
    for part in parts:
        ids = read_texts(part["user_ids"])
        if not last < ids[0]:
            raise ArtifactError(f"{part.filename} begins with the user {ids[0]!r}, who does not come after {last!r}")
        last = ids[-1]


def _write_context(group: h5py.Group, parts: Sequence[h5py.Group]) -> None:
    values = [part["values"] for part in parts]
    if "vocabulary" not in parts[0]:
        _write_recoded(group, "values", values, None)
        return
    own = [read_texts(part["vocabulary"]) for part in parts]
    vocabulary = _all_words(own)
    codes = [np.concatenate([[0], vocabulary.indices_of(words)]).astype(np.int32) for words in own]
    _write_recoded(group, "values", values, codes)
    vocabulary.write(group, "vocabulary")


def _write_recoded(
    group: h5py.Group, name: str, parts: Sequence[h5py.Dataset], codes: Sequence[np.ndarray] | None
) -> None:
    """Write arrays one after the other, each value being replaced by what its part's table of codes says."""
    target = group.create_dataset(name, (sum(len(part) for part in parts),), parts[0].dtype)
    at = 0
    for number, part in enumerate(parts):
        for begin in range(0, len(part), VALUES_AT_ONCE):
            values = part[begin : begin + VALUES_AT_ONCE]
            target[at : at + len(values)] = values if codes is None else codes[number][values]
            at += len(values)
