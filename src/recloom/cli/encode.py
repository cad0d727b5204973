"""`recloom encode`: the words of a catalogue to vectors, kept for every fit that follows."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from recloom.cli.console import ShownProgress, console, messages
from recloom.cli.ray_option import RayAddress, on_ray
from recloom.dataset import Dataset
from recloom.encoders import Blocks
from recloom.errors import ConfigError
from recloom.fitting import CACHE_NAME, read_catalogue
from recloom.run_config import EncoderConfig, RunConfig


def encode(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote.")],
    encoder: Annotated[
        str | None, typer.Option(help="minilm, multilingual, hashing, openai:MODEL, a folder or a hub name.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model that is to read it.")] = "weave",
    ray: RayAddress = None,
) -> None:
    """Read the catalogue's text ahead of fitting; what was read already is not read again."""
    data = Dataset.open(dataset)
    settings: dict[str, dict[str, Any]] = {"encoder": {"name": encoder}} if encoder else {}
    config = RunConfig.resolve(model, data, settings)
    with on_ray(ray) as is_spread, ShownProgress() as progress:
        elsewhere: Callable[[EncoderConfig], Blocks] | None = None
        if is_spread:
            from recloom.cluster.encoding import encode_on_cluster

            elsewhere = encode_on_cluster
        text, loaded, chosen, warnings = read_catalogue(data, config, progress, elsewhere)
    for warning in warnings:
        messages.print(f"warning: {warning}", soft_wrap=True)
    if text is None or loaded is None:
        raise ConfigError(f"there is nothing to read: {dataset} has no text columns, or {model} reads none")
    console.print(
        f"{len(text.vectors_IE) - 1:,} items are read by {chosen.name} ({loaded.embedding_dim} numbers each); the"
        f" vectors are in {data.path.with_name(CACHE_NAME)}. Next: recloom fit {dataset} --encoder {chosen.name}"
        " --out MODEL",
        soft_wrap=True,
    )
