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

from recloom.bulk import Answers, Asked, Written, answer_lines, as_table, count, write_lists
from recloom.cli.console import PseudonymKey, console, messages, parse_pairs, read_pseudonyms
from recloom.cli.ray_option import RayAddress, on_ray
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
    out: Annotated[
        Path | None,
        typer.Option(help="Write the lists: .csv, .parquet or .jsonl; or a folder, part by part, for very many."),
    ] = None,
    ray: RayAddress = None,
) -> None:
    """Recommend what comes next."""
    if sum([user is not None, history is not None, histories is not None, all_users]) != 1:
        raise ConfigError("say for whom, in one way: --user ID, --history A,B,C, --histories FILE or --all-users")
    is_many = histories is not None or all_users
    if out and out.suffix not in _WRITERS and not (is_many and not out.suffix):
        folder = ", or a folder for --all-users and --histories"
        raise ConfigError(f"--out {out} has the suffix {out.suffix!r}; choose {', '.join(_WRITERS)}{folder}")
    if ray and not (is_many and out and not out.suffix):
        raise ConfigError("--ray is for very many lists: give --all-users or --histories FILE, and --out FOLDER")
    if writer and not explain:
        raise ConfigError("--writer phrases what --explain says; give both")
    situation = parse_pairs("--context", context)
    if out and not out.suffix:
        if explain or rerank:
            raise ConfigError(
                f"--out {out} is a folder, which holds plain lists; --explain and --rerank write to a file:"
                f" {', '.join(_WRITERS)}"
            )
        asked = Asked(
            model=str(model.absolute()),
            histories=None if histories is None else str(histories.absolute()),
            items=None if items is None else str(Path(items).absolute()),
            k=k,
            context=situation,
            include_seen=include_seen,
        )
        _write_folder(asked, out.absolute(), ray)
        return
    phrasing, ordering = (load_writer(name) if name else None for name in (writer, rerank))
    recommender = Recommender.load(model)
    if items:
        recommender = recommender.with_items(items)
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
        queries, lists = answer_lines(recommender, _read(histories), histories, options)
    else:
        queries = list(recommender.dataset.users.ids)
        lists = recommender.recommend_users(queries, **options)
    _report_unusual(count(lists))
    if ordering:
        lists = [_reranked(ordering, recommender, ranked, seconds) for ranked in lists]
    if phrasing:
        lists = _phrased(phrasing, recommender, lists, checked_language(language), seconds)
    if out:
        table = as_table(queries, lists)
        if explain:
            table = _with_reasons(table, lists, is_flat=out.suffix == ".csv")
        with replacing(out) as beside:
            _WRITERS[out.suffix](table, beside)
        console.print(f"Wrote {len(table):,} recommendations for {len(queries):,} histories to {out}", soft_wrap=True)
        return
    for query, ranked in zip(queries, lists, strict=True):
        show_list(f"For {query}" if query != "history" else "For this history", ranked.items)


def _write_folder(asked: Asked, out: Path, ray: str | None) -> None:
    with on_ray(ray) as is_spread:
        answers: Answers | None = None
        if is_spread:
            from recloom.cluster.answering import answer_on_cluster

            answers = answer_on_cluster
        written = write_lists(asked, out, answers)
    _report_unusual(written)
    console.print(
        f"Wrote {written.lists:,} recommendations for {written.queries:,} histories to {out}/part-*.parquet",
        soft_wrap=True,
    )


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _report_unusual(written: Written) -> None:
    if written.unknown_items:
        messages.print(
            f"note: {written.unknown_items:,} items of the histories are not in the catalogue and were skipped"
        )
    if written.popular:
        messages.print(f"note: {written.popular:,} histories were empty; they got what is most popular")


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


def _with_reasons(table: pl.DataFrame, lists: list[RankedList], *, is_flat: bool) -> pl.DataFrame:
    """Add why each item is there; reasons are JSON in a file that holds no lists."""
    items = [item for ranked in lists for item in ranked.items]
    told = [[reason.as_dict() for reason in item.reasons] for item in items]
    texts = [json.dumps(reasons, ensure_ascii=False) for reasons in told]
    reasons = pl.Series("reasons", texts if is_flat else told, pl.String if is_flat else _REASONS)
    return table.with_columns(pl.Series("because", [item.because for item in items], pl.String), reasons)
