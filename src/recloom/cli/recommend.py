"""`recloom recommend`: a model and somebody's history to what comes next."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.table import Table

from recloom.bulk import Answers, Asked, Written, answer_lines, as_table, count, write_lists
from recloom.cli.console import PseudonymKey, console, messages, parse_pairs, read_pseudonyms
from recloom.cli.ray_option import RayAddress, on_ray
from recloom.errors import ConfigError, DataError
from recloom.files import replacing
from recloom.recommender import Recommendation, Recommender

SHOWN_HISTORY = 5
_WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": pl.DataFrame.write_csv,
    ".parquet": pl.DataFrame.write_parquet,
    ".jsonl": pl.DataFrame.write_ndjson,
}


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
    situation = parse_pairs("--context", context)
    if out and not out.suffix:
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
    recommender = Recommender.load(model)
    if items:
        recommender = recommender.with_items(items)
    options: dict[str, Any] = {"k": k, "context": situation, "include_seen": include_seen}
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
    if out:
        table = as_table(queries, lists)
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
    table = Table("rank", "item", "title", "score", title=title, title_justify="left")
    for item in items:
        table.add_row(str(item.rank), item.item_id, item.title, f"{item.score:.3f}")
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
