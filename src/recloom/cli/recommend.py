"""`recloom recommend`: a model and somebody's history to what comes next."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.markup import escape
from rich.table import Table

from recloom.cli.console import PseudonymKey, console, messages, parse_pairs, read_pseudonyms
from recloom.dataset import Interaction
from recloom.errors import ConfigError, DataError
from recloom.explanation import Language, Phraser, Writer, checked_language, load_writer, reranked
from recloom.files import replacing
from recloom.recommender import RankedList, Recommendation, Recommender

SHOWN_HISTORY = 5
_WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": pl.DataFrame.write_csv,
    ".parquet": pl.DataFrame.write_parquet,
    ".jsonl": pl.DataFrame.write_ndjson,
}

_REASONS = pl.List(
    pl.Struct(
        {
            **dict.fromkeys(("kind", "item_id", "title", "behavior", "name"), pl.String),
            "contribution": pl.Float64,
        }
    )
)


def recommend(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    user: Annotated[str | None, typer.Option(help="A user of the dataset.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first: A,B,C. May be empty.")] = None,
    histories: Annotated[Path | None, typer.Option(help="JSON lines with query_id and history.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="Every user of the dataset.")] = False,
    pseudonym_key: PseudonymKey = None,
    k: Annotated[int, typer.Option(help="Length of a list.")] = 10,
    context: Annotated[list[str], typer.Option(help="The situation now: location=Shanghai. Repeatable.")] = [],  # noqa: B006
    items: Annotated[str | None, typer.Option(help="Catalogue rows to know beside the model's: new items.")] = None,
    include_seen: Annotated[bool | None, typer.Option(help="Whether items of the history may come again.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each item is there.")] = False,
    language: Annotated[str, typer.Option(help="Of what --explain says: en or zh.")] = "en",
    writer: Annotated[
        str | None,
        typer.Option(help="Language model that phrases what --explain says: smollm2, openai:MODEL, a folder."),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(help="Language model that orders every list anew, by prompt. Read docs/explanations.md."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Most time for a list that --writer and --rerank have, each.")] = 60.0,
    out: Annotated[Path | None, typer.Option(help="Write the lists: .csv, .parquet or .jsonl.")] = None,
) -> None:
    """Recommend what comes next."""
    if sum([user is not None, history is not None, histories is not None, all_users]) != 1:
        raise ConfigError("say for whom, in one way: --user ID, --history A,B,C, --histories FILE or --all-users")
    if out and out.suffix not in _WRITERS:
        raise ConfigError(f"--out {out} has the suffix {out.suffix!r}; choose {', '.join(_WRITERS)}")
    if writer and not explain:
        raise ConfigError("--writer phrases what --explain says; give both")
    phrasing, ordering = (load_writer(name) if name else None for name in (writer, rerank))
    recommender = Recommender.load(model)
    if items:
        recommender = recommender.with_items(items)
    situation = parse_pairs("--context", context)
    options: dict[str, Any] = {"k": k, "context": situation, "include_seen": include_seen}
    options |= {"explain": explain, "language": language}
    if user is not None:
        if pseudonyms := read_pseudonyms(pseudonym_key):
            user = pseudonyms.of(user)
        queries, lists = [user], recommender.recommend_users([user], **options)
    elif history is not None:
        ids = [part.strip() for part in history.split(",") if part.strip()]
        queries, lists = ["history"], recommender.recommend_histories([ids], **options)
    elif histories is not None:
        queries, lists = _answer_file(recommender, histories, options)
    else:
        queries = list(recommender.dataset.users.ids)
        lists = recommender.recommend_users(queries, **options)
    _report_unusual(lists)
    if ordering:
        lists = [_reranked(ordering, recommender, ranked, seconds) for ranked in lists]
    if phrasing:
        lists = _phrased(phrasing, recommender, lists, checked_language(language), seconds)
    if out:
        table = _as_table(queries, lists, explain=explain, is_flat=out.suffix == ".csv")
        with replacing(out) as beside:
            _WRITERS[out.suffix](table, beside)
        console.print(f"Wrote {len(table):,} recommendations for {len(queries):,} histories to {out}", soft_wrap=True)
        return
    for query, ranked in zip(queries, lists, strict=True):
        show_list(f"For {query}" if query != "history" else "For this history", ranked.items)


def show_list(title: str, items: list[Recommendation]) -> None:
    """Print a ranked list with titles."""
    why = ["why"] if any(item.because for item in items) else []
    table = Table("rank", "item", "title", "score", *why, title=title, title_justify="left")
    for item in items:
        cells = [str(item.rank), item.item_id, item.title, f"{item.score:.3f}", *([item.because] if why else [])]
        table.add_row(*map(escape, cells))
    console.print(table)


def show_history(recommender: Recommender, user: str) -> None:
    """Print what a user had last."""
    dataset = recommender.dataset
    last = dataset.item_index[dataset.history_of(user)][-SHOWN_HISTORY:]
    titles = [recommender.titles[item] or dataset.items.id_of(int(item)) for item in last]
    console.print(f"User {user}, last: {'; '.join(titles)}", soft_wrap=True)


def _answer_file(recommender: Recommender, path: Path, options: dict[str, Any]) -> tuple[list[str], list[RankedList]]:
    """Answer every line of a JSON lines file; lines without their own context share the command's."""
    queries: list[str] = []
    histories: list[list[str | Interaction]] = []
    rows_by_context: dict[str, list[int]] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            query = json.loads(line)
            histories.append([_interaction(one) for one in query["history"]])
            queries.append(str(query["query_id"]))
            rows_by_context.setdefault(json.dumps(query.get("context") or {}), []).append(number - 1)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f'line {number} of {path} is not a query ({error}); wanted {{"query_id": "...", "history": ["item"]}}'
            ) from None
    if not queries:
        raise DataError(f"{path} holds no query; wanted one JSON object a line")
    answers: dict[int, RankedList] = {}
    for context, rows in rows_by_context.items():
        own = {"context": json.loads(context)} if context != "{}" else {}
        lists = recommender.recommend_histories([histories[row] for row in rows], **(options | own))
        answers |= dict(zip(rows, lists, strict=True))
    return queries, [answers[row] for row in range(len(queries))]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start:,}; convert it") from None


def _interaction(one: Any) -> Interaction:
    if isinstance(one, dict):
        rest = {name: v for name, v in one.items() if name not in ("item_id", "timestamp", "behavior")}
        return Interaction(str(one["item_id"]), int(one.get("timestamp", 0)), str(one.get("behavior", "")), rest)
    return Interaction(str(one))


def _report_unusual(lists: list[RankedList]) -> None:
    if unknown := sum(ranked.unknown_items for ranked in lists):
        messages.print(f"note: {unknown:,} items of the histories are not in the catalogue and were skipped")
    if empty := sum(ranked.served_by == "popular" for ranked in lists if ranked.items):
        messages.print(f"note: {empty:,} histories were empty; they got what is most popular")


def _phrased(
    writer: Writer, recommender: Recommender, lists: list[RankedList], language: Language, seconds: float
) -> list[RankedList]:
    """Have the reasons of lists phrased; what is not usable keeps the template's sentence."""
    phraser, kept = Phraser(writer, recommender.titles, seconds), []
    problems: list[str] = []
    for ranked in lists:
        phrased = phraser.phrase([(item.because, item.reasons) for item in ranked.items], language)
        problems += [one.problem for one in phrased if one.problem]
        items = [replace(item, because=one.text) for item, one in zip(ranked.items, phrased, strict=True)]
        kept.append(replace(ranked, items=items))
    if problems:
        messages.print(
            f"note: {len(problems):,} reasons kept the template's sentence; of the first, {problems[0]}",
            markup=False,
            soft_wrap=True,
        )
    return kept


def _reranked(writer: Writer, recommender: Recommender, ranked: RankedList, seconds: float) -> RankedList:
    """Have a list ordered anew; scores stay those of the model."""
    indices = recommender.dataset.items.indices_of(ranked.past)
    past = [recommender.titles[row] or item for row, item in zip(indices, ranked.past, strict=True)]
    candidates = [item.title or item.item_id for item in ranked.items]
    order, problem = reranked(writer, past, candidates, seconds=seconds)
    if problem:
        messages.print(f"note: a list kept its order: {problem}", markup=False, soft_wrap=True)
    items = [replace(ranked.items[place], rank=rank) for rank, place in enumerate(order, start=1)]
    return replace(ranked, items=items)


def _as_table(queries: list[str], lists: list[RankedList], *, explain: bool, is_flat: bool) -> pl.DataFrame:
    """Return one row for each recommendation; reasons are JSON in a file that holds no lists."""
    places = [(query, item) for query, ranked in zip(queries, lists, strict=True) for item in ranked.items]
    rows = [(query, item.rank, item.item_id, item.score) for query, item in places]
    schema = {"query_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if not explain:
        return table
    told = [[reason.as_dict() for reason in item.reasons] for _, item in places]
    texts = [json.dumps(reasons, ensure_ascii=False) for reasons in told]
    reasons = pl.Series("reasons", texts if is_flat else told, pl.String if is_flat else _REASONS)
    return table.with_columns(pl.Series("because", [item.because for _, item in places], pl.String), reasons)
