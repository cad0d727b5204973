"""`recloom forget`: a model and somebody who wants to be forgotten to a model without them, and a receipt."""

from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import PseudonymKey, ShownProgress, console, read_pseudonyms
from recloom.cli.live_store import database_of, opened_store
from recloom.dataset import Dataset
from recloom.errors import ConfigError
from recloom.files import current_folder, recover
from recloom.lifecycle.forgetting import Receipt, Removal, RetrainedShards, read_key
from recloom.lifecycle.forgetting import forget as forget_people


def forget(
    model: Annotated[Path, typer.Argument(help="Folder of the model, with all its versions.")],
    user: Annotated[list[str], typer.Option(help="Who. Repeatable.")] = [],  # noqa: B006
    dataset: Annotated[list[Path], typer.Option(help="Prepared dataset that holds them too. Repeatable.")] = [],  # noqa: B006
    database: Annotated[
        str | None, typer.Option(envvar="RECLOOM_DATABASE", help="The service's. [default: MODEL.live.db, if there]")
    ] = None,
    pseudonym_key: PseudonymKey = None,
    later: Annotated[bool, typer.Option("--later", help="Only remove data now; without --user, train again.")] = False,
    check: Annotated[Path | None, typer.Option(help="Receipt to check instead.")] = None,
) -> None:
    """Forget people: their data at once, then what the weights learned from it, by training again without them.

    Whom a service was told to delete is forgotten as well, where its database is known.
    """
    if check is not None:
        is_genuine = Receipt.from_json(check.read_text(encoding="utf-8")).is_genuine(read_key(model))
        console.print(f"{check} is genuine." if is_genuine else f"{check} is not what was signed.", soft_wrap=True)
        raise typer.Exit(0 if is_genuine else 1)
    recover(model)
    if pseudonyms := read_pseudonyms(pseudonym_key):
        user = [pseudonyms.of(one) for one in user]
    elsewhere, deleted = _forget_in_database(database_of(model, database), user, model)
    user = [*user, *deleted]
    if not user and later:
        raise ConfigError("name somebody with --user; without one, what was put off is trained again")
    with ShownProgress() as progress:
        receipt, path = forget_people(
            model, user, datasets=dataset, elsewhere=elsewhere, retrain=not later, progress=progress
        )
    for removal in receipt.removed:
        what = f"{removal.interactions:,} interactions removed" if removal.interactions else "removed"
        console.print(f"{removal.where}: {what}", soft_wrap=True, markup=False)
    if receipt.weights == "carry":
        console.print(f"The weights still carry what they learned. Next: recloom forget {model}", soft_wrap=True)
    elif receipt.shards is not None:
        console.print(_said_of_shards(receipt.shards), soft_wrap=True)
    else:
        console.print("The model was trained without them.")
    console.print(f"Receipt: {path}. Check it with: recloom forget {model} --check {path}", soft_wrap=True)


def _said_of_shards(retrained: RetrainedShards) -> str:
    names, number = ", ".join(map(str, retrained.shards)), retrained.num_shards
    which = f"shard {names} of {number} was" if len(retrained.shards) == 1 else f"shards {names} of {number} were"
    if len(retrained.shards) == number:
        return f"All {number} shards were trained without them."
    return f"Trained without them: {which}, {retrained.work:.1%} of the work; the others never learned from them."


def _forget_in_database(address: str | None, users: list[str], model: Path) -> tuple[list[Removal], list[str]]:
    """Forget people in a service's database; return what went, and whom of the model the service was told to delete."""
    if address is None:
        return [], []
    with opened_store(address, "forgetting somebody in a service's database") as store:
        removed = [store.forget(user) for user in users]
        known = Dataset.open(current_folder(model)).users.ids
        deleted = [user for user in store.forgotten_among(known) if user not in users]
    events, lists = (sum(counts[name] for counts in removed) for name in ("events", "recommendations"))
    removals = [Removal("the service's database", events)] if events else []
    removals += [Removal(f"{lists:,} lists that the service had shown", 0)] if lists else []
    return removals, deleted
