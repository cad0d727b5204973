"""`recloom prepare`: files to a dataset."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console, messages, parse_pairs
from recloom.cli.ray_option import RayAddress, on_ray
from recloom.dataset import Dataset
from recloom.events import CleaningConfig, Entities, Pseudonyms, ReadReport, read_tables

SMALL = 1_000


def prepare(
    interactions: Annotated[
        list[str], typer.Argument(help="What people did: files, globs in quotes, or a folder; with --ray also URLs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the dataset to.")],
    items: Annotated[str | None, typer.Option(help="What the items say: a file, glob or folder.")] = None,
    users: Annotated[str | None, typer.Option(help="What is known of the users.")] = None,
    column: Annotated[list[str], typer.Option(help="What a column is: user_id=buyer. Repeatable.")] = [],  # noqa: B006
    pseudonym_key: Annotated[
        Path | None, typer.Option(help="Store keyed hashes of user ids; the key's file, made if missing.")
    ] = None,
    min_interactions: Annotated[int, typer.Option(help="Drop users and items with fewer, again and again.")] = 0,
    repeat_seconds: Annotated[int, typer.Option(help="Drop repeats of an interaction within so many seconds.")] = 0,
    max_events_per_hour: Annotated[int, typer.Option(help="Drop users who ever have more in an hour.")] = 0,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Keep exact repeats of a row.")] = False,
    ray: RayAddress = None,
) -> None:
    """Read logs and catalogues of any known format into a dataset."""
    cleaning = CleaningConfig(
        drop_duplicates=not keep_duplicates,
        repeat_seconds=repeat_seconds,
        max_events_per_hour=max_events_per_hour,
        min_interactions=min_interactions,
    )
    columns = parse_pairs("--column", column)
    pseudonyms = Pseudonyms.from_file(pseudonym_key, create=True) if pseudonym_key else None
    with on_ray(ray) as is_spread:
        if is_spread:
            from recloom.cluster.preparation import prepare_on_cluster

            with ShownProgress() as progress:
                dataset, report, catalogue, people = prepare_on_cluster(
                    interactions,
                    items,
                    users,
                    out=out,
                    columns=columns,
                    cleaning=cleaning,
                    pseudonyms=pseudonyms,
                    progress=progress,
                )
        else:
            log, catalogue, people = read_tables(interactions, items, users, columns=columns, cleaning=cleaning)
            dataset, report = Dataset.from_tables(log, catalogue, people, out=out, pseudonyms=pseudonyms), log.report
    show_dataset(dataset, report, catalogue, people)
    if pseudonym_key:
        console.print(f"User ids are pseudonyms; keep {pseudonym_key} apart from the data.", soft_wrap=True)
    console.print(f"Wrote {dataset.path}. Next: recloom fit {out} --out MODEL", soft_wrap=True)


def show_dataset(dataset: Dataset, log: ReadReport, catalogue: Entities | None, people: Entities | None) -> None:
    """Print what was read, and what somebody should know before relying on it."""
    table = Table(show_header=False, box=None)
    table.add_row("interactions", f"{dataset.num_interactions:,}")
    table.add_row("users", f"{len(dataset.users):,}")
    table.add_row("items", f"{len(dataset.items):,}")
    table.add_row("behaviours", ", ".join(dataset.behavior.vocabulary.ids))
    if dataset.context:
        table.add_row("context", ", ".join(dataset.context))
    table.add_row("columns", ", ".join(f"{theirs} = {ours}" for theirs, ours in log.columns.items()))
    console.print(table)
    for report in (log, catalogue and catalogue.report, people and people.report):
        for note in report.notes if report else []:
            messages.print(f"note: {note}", soft_wrap=True)
    for reason, count in log.dropped.items():
        messages.print(f"left out: {count:,} rows, {reason} (rejects.csv has each)", soft_wrap=True)
    if catalogue:
        strangers = len(dataset.items) - len(catalogue.table)
        if strangers:
            messages.print(f"note: {strangers:,} items of the log have no catalogue row", soft_wrap=True)
    else:
        messages.print("note: no catalogue given (--items); items are known by their ids alone", soft_wrap=True)
    if dataset.num_interactions < SMALL:
        messages.print(
            f"warning: {dataset.num_interactions:,} interactions are too few to learn habits or measure anything;"
            f" expect sensible lists from about {SMALL:,} on",
            soft_wrap=True,
        )
