"""`recloom update`: a model and what happened since to its next version."""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import polars as pl
import typer
from rich.table import Table

from recloom.cli.console import PseudonymKey, ShownProgress, console, messages, parse_pairs, read_pseudonyms
from recloom.cli.live_store import opened_store
from recloom.config import parse_settings
from recloom.encoders.pictures import is_address
from recloom.errors import ConfigError
from recloom.events import IMAGE, Entities, Interactions, read_interactions, read_items
from recloom.lifecycle.versions import add_version, changing
from recloom.recommender import Recommender


def update(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    interactions: Annotated[
        Path | None, typer.Argument(help="What people did since; what is known is skipped.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="New and changed items.")] = None,
    users: Annotated[Path | None, typer.Option(help="What is known of new users.")] = None,
    database: Annotated[
        str | None, typer.Option(help="A service's database: learn the events and items that came in there as well.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The service's settings: behaviours of weight 0 or less are not learned.")
    ] = None,
    pseudonym_key: PseudonymKey = None,
    retire: Annotated[bool, typer.Option("--retire", help="Items that --items does not name leave.")] = False,
    column: Annotated[list[str], typer.Option(help="A column's name, ours=theirs. Repeatable.")] = [],  # noqa: B006
    settings: Annotated[
        list[str], typer.Option("--set", help="update.replay=2, update.epochs=3, ... Repeatable.")
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done for machines.")] = False,
) -> None:
    """Learn what happened since, as a new version beside the old one, which stays as it is."""
    if interactions is None and items is None and users is None and database is None:
        raise ConfigError("there is nothing to learn from; name a log of what people did, --items or --database")
    if database is not None and (interactions or users):
        raise ConfigError("learn from files or from --database; for both, update twice")
    if config is not None and database is None:
        raise ConfigError("--config says how a service reads its events; it goes with --database")
    tables = parse_settings(settings)
    if other := sorted(set(tables) - {"update"}):
        raise ConfigError(f"an update has options of [update] only, not of [{other[0]}]; fit anew to change those")
    with changing(model), TemporaryDirectory(prefix="recloom-") as folder:
        before = Recommender.load(model)
        with ShownProgress() as progress:
            if database is None:
                after = before.update(
                    interactions,
                    items,
                    users,
                    columns=parse_pairs("--column", column),
                    pseudonyms=read_pseudonyms(pseudonym_key),
                    retire=retire,
                    settings=tables.get("update"),
                    progress=progress,
                )
            else:  # where user ids are as the model spells them
                log, catalogue = _collected(database, config, items, Path(folder))
                after = before.learn(log, catalogue, retire=retire, settings=tables.get("update"), progress=progress)
        if after is before:
            console.print(f"Nothing in it is new; {model} stays as it is.", soft_wrap=True)
            return
        name = add_version(after, model)
    if as_json:
        console.print_json(json.dumps({"version": name, **after.run.lineage, "seconds": after.run.seconds}))
        return
    for warning in after.run.warnings:
        messages.print(f"warning: {warning}", soft_wrap=True, markup=False)
    show_lineage(after)
    console.print(
        f"Wrote {model} version {name}, current from now on. Back again: recloom versions rollback {model}",
        soft_wrap=True,
    )


def _collected(
    database: str, config: Path | None, items: Path | None, folder: Path
) -> tuple[Interactions | None, Entities | None]:
    """Read what came in at a service, as far as anything did, by way of files: it is checked as files are."""
    with opened_store(database, "learning from a service's database") as store:
        log, catalogue = store.collected(_unread(config))
    tables = (log, _with_served_pictures(catalogue, config))
    paths = (folder / "events.parquet", folder / "items.parquet")
    for table, path in zip(tables, paths, strict=True):
        table.write_parquet(path)
    catalogues = [*([items] if items else []), *([paths[1]] if len(tables[1]) else [])]
    return (
        read_interactions(paths[0]) if len(tables[0]) else None,
        read_items(catalogues) if catalogues else None,
    )


def _unread(config: Path | None) -> set[str]:
    """Return the behaviours that a service keeps and its model does not read: impressions, dislikes."""
    from recloom.serving.settings import read_settings  # the extra is there: the database was opened with it

    return {name for name, weight in read_settings(config).behaviors.items() if weight <= 0}


def _with_served_pictures(catalogue: pl.DataFrame, config: Path | None) -> pl.DataFrame:
    """Name the files of pictures as the service found them, in its folder; no other file is looked at."""
    from recloom.serving.pictures import served_picture
    from recloom.serving.settings import read_settings  # the extra is there: the database was opened with it

    if IMAGE not in catalogue.columns:
        return catalogue
    folder = read_settings(config).service.pictures
    names = [str(name or "") for name in catalogue[IMAGE].to_list()]
    files = [served_picture(name, folder) or (name if is_address(name) else "") for name in names]
    return catalogue.with_columns(pl.Series(IMAGE, files, dtype=pl.String))


def show_lineage(recommender: Recommender) -> None:
    """Print what an update learned from."""
    run = recommender.run
    lineage = run.lineage
    table = Table(show_header=False)
    table.add_row("new interactions", f"{lineage['interactions']:,}")
    if lineage["known_before"]:
        table.add_row("known already, skipped", f"{lineage['known_before']:,}")
    if lineage["older_than_known"]:
        table.add_row("older than what was known", f"{lineage['older_than_known']:,}")
    table.add_row("new users, new items", f"{lineage['users']:,}, {lineage['items']:,}")
    if lineage["retired"]:
        table.add_row("items that left", f"{len(lineage['retired']):,}")
    if "ndcg_at_10_before" in lineage:
        table.add_row(
            f"NDCG@10 of {lineage['parent']} on them",
            f"{lineage['ndcg_at_10_before']:.4f}, {lineage['cases']:,} users asked before it learned",
        )
    seen_until = datetime.fromtimestamp(lineage["seen_until"], UTC)
    table.add_row("has seen everything until", f"{seen_until:%Y-%m-%d %H:%M} UTC")
    table.add_row("time", f"{sum(run.seconds.values()):.1f} s, {run.seconds['encode']:.1f} s of it reading text")
    console.print(table)
