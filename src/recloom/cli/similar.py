"""`recloom similar`: an item to the items nearest to it."""

from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import console
from recloom.cli.recommend import show_list
from recloom.recommender import Recommender


def similar(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    item: Annotated[str, typer.Argument(help="Item id.")],
    k: Annotated[int, typer.Option(help="Length of the list.")] = 10,
) -> None:
    """Show the items that the model places nearest to one."""
    recommender = Recommender.load(model)
    neighbours = recommender.similar_items(item, k)
    show_list(f"Nearest to {item} {recommender.titles[recommender.dataset.items.index_of(item)]}".rstrip(), neighbours)
    if not neighbours:
        console.print("The model knows nothing of this item: it has neither interactions nor text.")
