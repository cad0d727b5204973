"""`recloom disclose`: a model and somebody who asks what is held on them to a file for them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import PseudonymKey, console, read_pseudonyms
from recloom.cli.live_store import database_of, opened_store
from recloom.dataset import Dataset
from recloom.errors import UnknownIdError
from recloom.files import recover, replacing
from recloom.lifecycle.versions import model_folders


def disclose(
    model: Annotated[Path, typer.Argument(help="Folder of the model, with all its versions.")],
    user: Annotated[str, typer.Option(help="Who asks.")],
    out: Annotated[Path, typer.Option(help="File to write, JSON.")],
    dataset: Annotated[list[Path], typer.Option(help="Prepared dataset to look into as well. Repeatable.")] = [],  # noqa: B006
    database: Annotated[
        str | None, typer.Option(envvar="RECLOOM_DATABASE", help="The service's. [default: MODEL.live.db, if there]")
    ] = None,
    pseudonym_key: PseudonymKey = None,
) -> None:
    """Write down everything that is held on one person, wherever it is."""
    recover(model)
    pseudonyms = read_pseudonyms(pseudonym_key)
    known_as = pseudonyms.of(user) if pseudonyms else user
    held = {str(folder): Dataset.open(folder).held_on(known_as) for folder in [*model_folders(model), *dataset]}
    if address := database_of(model, database):
        with opened_store(address, "looking into a service's database") as store:
            found = store.held_on(known_as)
            held["the service's database"] = found if any(found.values()) else {}
    held = {where: what for where, what in held.items() if what}
    if not held:
        raise UnknownIdError(f"nothing is held on {user!r} in {model} or beside it; check how the log spells the id")
    with replacing(out) as partial:
        partial.write_text(json.dumps(held, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
    console.print(f"Wrote {out}: what {', '.join(held)} hold on them.", soft_wrap=True)
