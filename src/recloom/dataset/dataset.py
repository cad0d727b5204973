"""A prepared dataset: interactions as flat arrays of indices, items and users as tables, in one HDF5 file.

The arrays of interactions are not read but mapped: a part of them comes into memory when it is looked at, and the
system may let go of it again, so that a log need not fit into memory.
"""

import copy
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import h5py
import numpy as np
import polars as pl

from recloom.dataset.columns import (
    CategoryColumn,
    ContextColumn,
    encode_categories,
    encode_column,
    read_column,
    write_column,
)
from recloom.dataset.mapped_arrays import mapped
from recloom.dataset.tables import read_table, write_table
from recloom.dataset.vocabulary import Vocabulary
from recloom.errors import ArtifactError
from recloom.events import (
    CleaningConfig,
    Entities,
    Interactions,
    Pseudonyms,
    ReadReport,
    Source,
    read_tables,
)
from recloom.files import replacing, reserve
from recloom.version import __version__

FILE_NAME = "dataset.h5"
FORMAT_VERSION = 2
VALUES_AT_ONCE = 2**22
ALIGNED_FROM, ALIGNMENT = 4_096, 64
"""Bytes."""


class Dataset:
    """Interactions, items and users of one `dataset.h5`. Opening reads nothing; an array is read when asked for.

    Interactions are ordered by user, then time, then the log's own order. User `u` (an index from 1)
    owns the positions `user_offsets[u]` to `user_offsets[u + 1]` of every flat array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary: _TemporaryFolder | None = None
        self._has_own_items = False  # True where the catalogue differs from the file's
        try:
            with h5py.File(path, "r") as file:
                attributes = dict(file.attrs)
        except FileNotFoundError:
            raise ArtifactError(
                f"no dataset at {path}; make one with: recloom prepare INTERACTIONS --items ITEMS --out {path.parent}"
            ) from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read as a dataset ({error}); prepare it again") from None
        if attributes.get("format") != "recloom-dataset":
            raise ArtifactError(f"{path} is an HDF5 file but not a recloom dataset; make one with: recloom prepare")
        if attributes["version"] != FORMAT_VERSION:
            raise ArtifactError(
                f"{path} has dataset format {attributes['version']}, recloom {__version__} reads"
                f" {FORMAT_VERSION}; prepare it again"
            )
        self.fingerprint: str = attributes["fingerprint"]
        """A digest of the interactions and the catalogue: two datasets with the same one hold the same data."""
        self.num_interactions = int(attributes["num_interactions"])
        self.pseudonym_key_id: str = attributes.get("pseudonym_key_id", "")
        """Names the key that user ids are pseudonyms of; "" where they are what the log says."""

    @classmethod
    def open(cls, folder: str | Path) -> "Dataset":
        """Open the dataset in a folder that `recloom prepare` made.

        Raises:
            ArtifactError: The folder holds no dataset, or one of another version.
        """
        return cls(Path(folder) / FILE_NAME)

    @classmethod
    def from_files(
        cls,
        interactions: Source,
        items: Source | None = None,
        users: Source | None = None,
        *,
        out: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        cleaning: CleaningConfig | None = None,
        pseudonyms: Pseudonyms | None = None,
    ) -> "Dataset":
        """Read logs and catalogues of any known format into a dataset.

        Args:
            interactions: A file, a glob, a folder, or several of them.
            items: The catalogue, likewise. Without one, items are known by their ids alone.
            users: What is known of the users, likewise.
            out: The folder to keep `dataset.h5` in. Without one the dataset lives as long as this object.
            columns: Names of columns that recloom does not recognise: `{"user_id": "buyer"}`.
            cleaning: Which interactions to drop.
            pseudonyms: What to store in the place of user ids.

        Raises:
            DataError: A file cannot be used; the message says why and what to do.
        """
        log, catalogue, people = read_tables(interactions, items, users, columns=columns, cleaning=cleaning)
        return cls.from_tables(log, catalogue, people, out=out, pseudonyms=pseudonyms)

    @classmethod
    def from_tables(
        cls,
        log: Interactions,
        items: Entities | None = None,
        users: Entities | None = None,
        *,
        out: str | Path | None = None,
        pseudonyms: Pseudonyms | None = None,
        pseudonym_key_id: str = "",
    ) -> "Dataset":
        """Number users, items and context values of validated tables and store them.

        Beside `dataset.h5`, `rejects.csv` lists the rows of the log that were left out and `report.json` counts them.

        Args:
            log: What people did.
            items: The catalogue.
            users: What is known of the users.
            out: The folder to keep `dataset.h5` in, as for `from_files`.
            pseudonyms: What to store in the place of user ids.
            pseudonym_key_id: Names the key of those that are pseudonyms already.
        """
        if pseudonyms is not None:
            log, users = pseudonyms.in_log(log), users and pseudonyms.in_users(users)
            pseudonym_key_id = pseudonyms.key_id
        temporary = _TemporaryFolder() if out is None else None
        path = (temporary.path if temporary else Path(str(out))) / FILE_NAME
        catalogue = items.table if items else pl.DataFrame(schema={"item_id": pl.String})
        item_vocabulary, item_index = encode_categories(
            log.table["item_id"], first=Vocabulary(catalogue["item_id"].to_list())
        )
        user_vocabulary, user_index = encode_categories(log.table["user_id"])
        # The log comes in user order by the order of first appearance; the vocabulary is sorted by id.
        order = _stable_order(user_index, len(user_vocabulary))
        offsets = np.zeros(len(user_vocabulary) + 2, dtype=np.int64)
        np.cumsum(np.bincount(user_index, minlength=len(user_vocabulary) + 1), out=offsets[1:])
        del user_index
        size = int(log.table.estimated_size() + catalogue.estimated_size())
        with replacing(path) as beside, new_file(beside, size, len(item_index), pseudonym_key_id) as file:
            item_vocabulary.write(file, "item_ids")
            user_vocabulary.write(file, "user_ids")
            write_table(file, "items", aligned(catalogue, item_vocabulary.ids, "item_id"))
            write_table(file, "users", aligned(users.table if users else None, user_vocabulary.ids, "user_id"))
            file["user_offsets"] = offsets
            events = file.create_group("events")
            events["item_index"] = item_index[order]
            events["timestamp"] = log.table["timestamp"].to_numpy()[order]
            if "weight" in log.table.columns:
                events["weight"] = log.table["weight"].to_numpy()[order]
            context = file.create_group("context", track_order=True)
            for name in log.table.columns:
                if name not in ("user_id", "item_id", "timestamp", "weight"):
                    write_column(context, name, _reordered(encode_column(log.table[name]), order))
            file.attrs["fingerprint"] = fingerprint_of(file)
        if out is not None:
            write_reports(path.parent, log.rejects, {"interactions": log, "items": items, "users": users})
        dataset = cls(path)
        dataset._temporary = temporary
        return dataset

    @cached_property
    def items(self) -> Vocabulary:
        """Item ids: the catalogue's, in its order, then those that only the log knows, sorted."""
        return self._read(lambda file: Vocabulary.read(file, "item_ids"))

    @cached_property
    def users(self) -> Vocabulary:
        """Ids of the users who have interactions, sorted."""
        return self._read(lambda file: Vocabulary.read(file, "user_ids"))

    @cached_property
    def item_table(self) -> pl.DataFrame:
        """What the catalogue says, `item_id` and its own columns; row `i - 1` is item index `i`."""
        return self._read(lambda file: read_table(file["items"]))

    @cached_property
    def user_table(self) -> pl.DataFrame:
        """What is known of the users; row `u - 1` is user index `u`."""
        return self._read(lambda file: read_table(file["users"]))

    @cached_property
    def user_offsets(self) -> np.ndarray:
        """Where each user's interactions begin, by user index; int64 of shape (users + 2,)."""
        return self._read(lambda file: file["user_offsets"][:])

    @cached_property
    def item_index(self) -> np.ndarray:
        """The item of each interaction, int32."""
        return self._read(lambda file: mapped(file["events/item_index"]))

    @cached_property
    def timestamp(self) -> np.ndarray:
        """The time of each interaction in UTC seconds, int64."""
        return self._read(lambda file: mapped(file["events/timestamp"]))

    @cached_property
    def weight(self) -> np.ndarray | None:
        """The weight that the log gives each interaction; None where it gives none."""
        return self._read(lambda file: mapped(file["events/weight"]) if "weight" in file["events"] else None)

    @cached_property
    def behavior(self) -> CategoryColumn:
        """What each interaction was: view, purchase, ..."""
        column = self._read(lambda file: read_column(file["context/behavior"]))
        assert isinstance(column, CategoryColumn)
        return column

    @cached_property
    def context(self) -> dict[str, ContextColumn]:
        """Every further column of the log (location, device, rating, ...), by name."""
        return self._read(lambda file: {n: read_column(file["context"][n]) for n in file["context"] if n != "behavior"})

    def history_of(self, user_id: str) -> slice:
        """Return the positions of a user's interactions in the flat arrays; empty for an unknown user."""
        user = self.users.index_of(user_id)
        return slice(int(self.user_offsets[user]), int(self.user_offsets[user + 1]))

    def held_on(self, user_id: str) -> dict[str, Any]:
        """Return all that is stored of somebody, by column; nothing of somebody unknown."""
        user, where = self.users.index_of(user_id), self.history_of(user_id)
        if not user:
            return {}
        columns: dict[str, ContextColumn] = {"behavior": self.behavior, **self.context}
        log = pl.DataFrame(
            {
                "item_id": [self.items.id_of(int(item)) for item in self.item_index[where]],
                "timestamp": self.timestamp[where],
                **{name: _values(column, where) for name, column in columns.items()},
            }
        )
        return {"user": self.user_table.row(user - 1, named=True), "interactions": log.to_dicts()}

    def with_items(self, items: pl.DataFrame) -> "Dataset":
        """Return this dataset with catalogue rows added, or replaced where the id is known.

        Known items keep their index; new ones follow after the last.
        """
        known = self.item_table.join(items.select("item_id"), on="item_id", how="anti", maintain_order="left")
        both = pl.concat([known, items], how="diagonal_relaxed")
        new = [id_ for id_ in items["item_id"] if id_ not in self.items]
        extended = copy.copy(self)
        extended._has_own_items = True
        extended.items = Vocabulary([*self.items.ids, *new])
        extended.item_table = aligned(both, extended.items.ids, "item_id")
        return extended

    def of_users(self, chosen: np.ndarray) -> "Dataset":
        """Return the same dataset without the interactions of all but some users.

        Args:
            chosen: User indices.
        """
        is_kept_U = np.zeros(len(self.user_offsets) - 1, dtype=bool)
        is_kept_U[chosen] = True
        length_U = np.diff(self.user_offsets)
        is_kept_N = np.repeat(is_kept_U, length_U)
        fewer = copy.copy(self)
        fewer.user_offsets = np.concatenate([[0], np.cumsum(length_U * is_kept_U)])
        fewer.num_interactions = int(is_kept_N.sum())
        fewer._take_events(is_kept_N.nonzero()[0])
        fewer.timestamp = self.timestamp[is_kept_N]
        return fewer

    def blinded(self, positions: np.ndarray, seed: int = 0) -> "Dataset":
        """Return the same dataset with what happened at some positions made up; who acted and when stays.

        Whatever comes out differently from this one depends on what happened there.
        """
        rng = np.random.default_rng(seed)
        source = np.arange(self.num_interactions)
        source[positions] = rng.permutation(positions)
        blind = copy.copy(self)
        blind._take_events(source)
        blind.item_index = self.item_index.copy()
        blind.item_index[positions] = rng.integers(1, len(self.items) + 1, len(positions))
        return blind

    def _take_events(self, source: np.ndarray) -> None:
        """Let each interaction be what another one was."""
        context, behavior = self.context, self.behavior
        self.item_index = self.item_index[source]
        self.behavior = replace(behavior, values=behavior.values[source])
        self.context = {name: replace(column, values=column.values[source]) for name, column in context.items()}

    def copy_to(self, folder: Path) -> None:
        """Write `dataset.h5` into another folder: without a second copy on disk where that is possible."""
        target = folder / FILE_NAME
        if not self._has_own_items:
            try:
                os.link(self.path, target)  # safe to share: the file is only ever replaced, never written to
            except OSError:
                shutil.copyfile(self.path, target)
            return
        shutil.copyfile(self.path, target)
        with h5py.File(target, "r+") as file:
            del file["item_ids"], file["items"]
            self.items.write(file, "item_ids")
            write_table(file, "items", self.item_table)
            file.attrs["fingerprint"] = fingerprint_of(file)

    def _read(self, what: Any) -> Any:
        try:
            with h5py.File(self.path, "r") as file:
                return what(file)
        except (OSError, KeyError) as error:
            raise ArtifactError(f"{self.path} is damaged ({error}); prepare it again") from None


class _TemporaryFolder:
    """A folder that lives as long as some dataset refers to it."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="recloom-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def new_file(path: Path, size: int, num_interactions: int, pseudonym_key_id: str) -> h5py.File:
    """Open a dataset file to be written, of about so many bytes; who closes it gives it its fingerprint before."""
    reserve(path, size)
    # Large arrays begin where they can be mapped.
    file = h5py.File(path, "w", alignment_threshold=ALIGNED_FROM, alignment_interval=ALIGNMENT)
    file.attrs["format"], file.attrs["version"] = "recloom-dataset", FORMAT_VERSION
    file.attrs["created_by"] = f"recloom {__version__}"
    file.attrs["num_interactions"] = num_interactions
    file.attrs["pseudonym_key_id"] = pseudonym_key_id
    return file


def aligned(table: pl.DataFrame | None, ids: Sequence[str] | pl.Series, key: str) -> pl.DataFrame:
    """Put rows in the order of ids, with empty ones for ids the table lacks."""
    of_ids = pl.DataFrame({key: pl.Series(ids, dtype=pl.String)})
    return of_ids if table is None else of_ids.join(table, on=key, how="left", maintain_order="left")


def _stable_order(user_index: np.ndarray, num_users: int) -> np.ndarray | slice:
    """Return what brings interactions into user order without changing the order within a user."""
    if bool(np.all(user_index[1:] >= user_index[:-1])):
        return slice(None)
    # A radix pass over 16 bits at a time: numpy's stable sort is a radix sort for 16-bit integers only.
    order = np.argsort((user_index & 0xFFFF).astype(np.uint16), kind="stable")
    if num_users > 0xFFFF:
        order = order[np.argsort((user_index[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def _reordered(column: ContextColumn, order: np.ndarray | slice) -> ContextColumn:
    return replace(column, values=column.values[order])


def write_reports(folder: Path, rejects: pl.DataFrame, parts: Mapping[str, Interactions | Entities | None]) -> None:
    """Write the rows that were left out, and what was found in each of the files."""
    with replacing(folder / "rejects.csv") as beside:
        rejects.write_csv(beside)
    write_report(folder, {name: part.report for name, part in parts.items() if part})


def write_report(folder: Path, reports: Mapping[str, ReadReport]) -> None:
    """Write what was found in each of the files."""
    tables = {name: asdict(report) for name, report in reports.items()}
    with replacing(folder / "report.json") as beside:
        beside.write_text(json.dumps(tables, indent=1, ensure_ascii=False), encoding="utf-8")


def _values(column: ContextColumn, where: slice) -> pl.Series:
    if isinstance(column, CategoryColumn):
        words = [None, *column.vocabulary.ids]
        return pl.Series([words[code] for code in column.values[where]], dtype=pl.String)
    return pl.Series(column.values[where]).fill_nan(None)


def fingerprint_of(file: h5py.File) -> str:
    """Digest every array of a dataset file, names and values, a piece at a time."""
    digest = hashlib.blake2b(digest_size=16)

    def visit(name: str, stored: h5py.Group | h5py.Dataset) -> None:
        if isinstance(stored, h5py.Dataset):
            digest.update(name.encode())
            for begin in range(0, len(stored), VALUES_AT_ONCE):
                digest.update(np.ascontiguousarray(stored[begin : begin + VALUES_AT_ONCE]).view(np.uint8).data)

    file.visititems(visit)
    return digest.hexdigest()
