"""A model and very many histories -> ranked lists in files, a part at a time: neither has to fit into memory.

A part is written whole or not at all, and what is there already is not done again. Here one part follows another; on a
cluster the same function answers each part somewhere.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recloom.dataset import Dataset, Interaction
from recloom.errors import ConfigError, DataError
from recloom.events.sources import find_files
from recloom.files import current_folder, file_digest, recover, replacing, version_of
from recloom.recommender import RankedList, Recommender

QUERIES_OF_A_PART = 16_384
ASKED, FINISHED = "asked.json", "lists.json"
_SCHEMA = {"query_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a model for everybody."""

    model: str
    """Its folder."""
    histories: str | None = None
    """File of JSON lines. None: all users of the dataset are asked for."""
    items: str | None = None
    """Catalogue rows to know beside the model's."""
    k: int = 10
    context: dict[str, str] = field(default_factory=dict)
    include_seen: bool | None = None
    queries_of_a_part: int = QUERIES_OF_A_PART

    def load(self) -> Recommender:
        """Load the model that answers."""
        recommender = Recommender.load(self.model)
        return recommender.with_items(self.items) if self.items else recommender

    @property
    def options(self) -> dict[str, Any]:
        """What is the same for all lists."""
        return {"k": self.k, "context": self.context, "include_seen": self.include_seen}

    def facts(self) -> dict[str, Any]:
        """Return all that decides the lists: two of the same are of one run."""
        files = find_files(self.items) if self.items else []
        if self.histories and Path(self.histories).is_file():
            files.append(Path(self.histories))
        digests = {str(path): file_digest(path) for path in files}
        return {**asdict(self), "model_digest": version_of(Path(self.model)), "digests": digests}


@dataclass(frozen=True)
class Part:
    """Some of the queries: users by index, or bytes of the file of histories."""

    number: int
    begin: int
    end: int
    first: int
    """Number of the first line, from 1; of users, as `begin`."""


@dataclass(frozen=True)
class Written:
    """What has been written of a part, or of all."""

    queries: int = 0
    lists: int = 0
    unknown_items: int = 0
    popular: int = 0
    """Queries without a history that the model knows, which got what is most popular."""

    def __add__(self, other: "Written") -> "Written":
        return Written(*(a + b for a, b in zip(self.__dict__.values(), other.__dict__.values(), strict=True)))


Answers = Callable[[Sequence[Part], Asked, Path], Iterable[Written]]


def write_lists(asked: Asked, out: Path, answers: Answers | None = None) -> Written:
    """Write the lists of everybody who is asked for as `part-00000.parquet` and so on.

    `lists.json` is there once all parts are. What an interrupted run has finished is kept by the next of the same.

    Args:
        asked: Which lists.
        out: A new folder, or that of an interrupted run.
        answers: Answers parts in any order, as `answer_part` does. None: here, one after the other.

    Raises:
        ConfigError: The folder holds something else.
        DataError: A line of the histories is no query.
    """
    recover(Path(asked.model))
    facts = asked.facts()
    begun = out / ASKED
    has_parts = any(out.glob("part-*.parquet"))
    if begun.exists() and has_parts and json.loads(begun.read_text(encoding="utf-8")) != facts:
        raise ConfigError(
            f"{out} holds lists of another model or other questions; choose another folder, or remove it first"
        )
    if out.exists() and not begun.exists() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something else than lists; choose another folder")
    parts = parts_of(asked)
    with replacing(begun) as beside:
        beside.write_text(json.dumps(facts), encoding="utf-8")
    total = sum((answers or _answer_here)(parts, asked, out), Written())
    with replacing(out / FINISHED) as beside:
        record = {**facts, **asdict(total), "parts": [_name(part) for part in parts]}
        beside.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return total


def parts_of(asked: Asked) -> list[Part]:
    """Return the parts in which the queries are answered."""
    size = asked.queries_of_a_part
    if asked.histories is not None:
        return list(_parts_of_file(Path(asked.histories), size))
    num_users = len(Dataset.open(current_folder(Path(asked.model))).user_offsets) - 2
    begins = range(1, num_users + 1, size)
    return [Part(number, at, min(at + size, num_users + 1), at) for number, at in enumerate(begins)]


def _parts_of_file(path: Path, size: int) -> Iterator[Part]:
    number = begin = at = lines = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip() and lines and lines % size == 0 and begin < at:
                    yield Part(number, begin, at, lines - size + 1)
                    number, begin = number + 1, at
                lines += bool(line.strip())
                at += len(line)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if lines == 0:
        raise DataError(f"{path} holds no query; wanted one JSON object a line")
    yield Part(number, begin, at, number * size + 1)


def _answer_here(parts: Sequence[Part], asked: Asked, out: Path) -> Iterator[Written]:
    recommender = asked.load()
    for part in parts:
        yield answer_part(part, recommender, asked, out)


def answer_part(part: Part, recommender: Recommender, asked: Asked, out: Path) -> Written:
    """Write the lists of a part, unless they are there."""
    path = out / _name(part)
    if path.exists():
        return Written(**json.loads(pl.read_parquet_metadata(path)["recloom"]))
    if asked.histories is None:
        queries = list(recommender.dataset.users.ids[part.begin - 1 : part.end - 1])
        lists = recommender.recommend_users(queries, **asked.options)
    else:
        histories = Path(asked.histories)
        with histories.open("rb") as file:
            file.seek(part.begin)
            raw = file.read(part.end - part.begin)
        queries, lists = answer_lines(recommender, raw, histories, asked.options, part.first)
    table = as_table(queries, lists)
    written = count(lists)
    with replacing(path) as beside:
        table.write_parquet(beside, metadata={"recloom": json.dumps(asdict(written))})
    return written


def _name(part: Part) -> str:
    return f"part-{part.number:05}.parquet"


def count(lists: Sequence[RankedList]) -> Written:
    """Count what a user should know of lists."""
    return Written(
        len(lists),
        sum(len(ranked.items) for ranked in lists),
        sum(ranked.unknown_items for ranked in lists),
        sum(ranked.served_by == "popular" for ranked in lists if ranked.items),
    )


def as_table(queries: Sequence[str], lists: Sequence[RankedList]) -> pl.DataFrame:
    """Return lists as rows of query_id, rank, item_id and score."""
    rows = [
        (query, item.rank, item.item_id, item.score)
        for query, ranked in zip(queries, lists, strict=True)
        for item in ranked.items
    ]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def answer_lines(
    recommender: Recommender, raw: bytes, path: Path, options: dict[str, Any], first: int = 1
) -> tuple[list[str], list[RankedList]]:
    """Answer every line of JSON lines; lines without their own context share that of the options.

    Args:
        recommender: What answers.
        raw: The lines.
        path: Where they are from, for errors.
        options: Arguments of `recommend_histories`.
        first: The number of the first line.

    Returns:
        The query ids and the lists.

    Raises:
        DataError: A line is no query.
    """
    queries: list[str] = []
    histories: list[list[str | Interaction]] = []
    rows_by_context: dict[str, list[int]] = {}
    for row, line in enumerate(_lines(raw, path)):
        try:
            query = json.loads(line)
            histories.append([_interaction(one) for one in query["history"]])
            queries.append(str(query["query_id"]))
            rows_by_context.setdefault(json.dumps(query.get("context") or {}), []).append(row)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"line {row + first} of {path} is not a query ({error}); wanted"
                ' {"query_id": "...", "history": ["item"]}'
            ) from None
    if not queries:
        raise DataError(f"{path} holds no query; wanted one JSON object a line")
    answers: dict[int, RankedList] = {}
    for context, rows in rows_by_context.items():
        own = {"context": json.loads(context)} if context != "{}" else {}
        lists = recommender.recommend_histories([histories[row] for row in rows], **(options | own))
        answers |= dict(zip(rows, lists, strict=True))
    return queries, [answers[row] for row in range(len(queries))]


def _lines(raw: bytes, path: Path) -> list[str]:
    try:
        return [line for line in raw.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start:,}; convert it") from None


def _interaction(one: Any) -> Interaction:
    if isinstance(one, dict):
        rest = {name: v for name, v in one.items() if name not in ("item_id", "timestamp", "behavior")}
        return Interaction(str(one["item_id"]), int(one.get("timestamp", 0)), str(one.get("behavior", "")), rest)
    return Interaction(str(one))
