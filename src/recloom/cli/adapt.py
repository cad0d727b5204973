"""`recloom adapt`: a dataset to a language model that knows what goes together."""

from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import ShownProgress, console, parse_duration
from recloom.config import build, parse_settings
from recloom.dataset import Dataset, SplitConfig
from recloom.encoders import AdaptationConfig, adapt_encoder
from recloom.errors import ConfigError


def adapt(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write the language model to.")],
    encoder: Annotated[str, typer.Option(help="Start from minilm, multilingual, a folder, a hub name.")] = "auto",
    protocol: Annotated[str | None, typer.Option(help="Of the fits to come: temporal or leave-one-out.")] = None,
    budget: Annotated[str | None, typer.Option(help="Most time: 90s, 10m, 1h.")] = None,
    settings: Annotated[list[str], typer.Option("--set", help="Any option: adaptation.steps=200. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Fine-tune the language model (LoRA) on what people take one after the other."""
    tables = parse_settings(settings)
    if unknown := sorted(set(tables) - {"adaptation", "split", "encoder"}):
        raise ConfigError(f"unknown table [{unknown[0]}]; adapting reads adaptation, split and encoder")
    if further := sorted(set(tables.get("encoder", {})) - {"template"}):
        raise ConfigError(f"encoder.{further[0]} has no meaning here; name the encoder with --encoder")
    seconds = {"budget": parse_duration(budget)} if budget else {}
    split = build(SplitConfig, "split", tables.get("split", {}) | ({"protocol": protocol} if protocol else {}), {})
    config = build(AdaptationConfig, "adaptation", tables.get("adaptation", {}) | seconds, {})
    with ShownProgress() as progress:
        losses = adapt_encoder(
            Dataset.open(dataset),
            out,
            encoder=encoder,
            template=tables.get("encoder", {}).get("template"),
            split=split,
            config=config,
            progress=lambda done, total: progress("adapting", done, total),
        )
    few = max(1, len(losses) // 10)
    console.print(
        f"{len(losses)} steps; loss {sum(losses[:few]) / few:.3f} at first, {sum(losses[-few:]) / few:.3f} at last.\n"
        f"Wrote {out}. Next: recloom fit {dataset} --out MODEL --encoder {out}"
        + (f" --protocol {protocol}" if protocol else ""),
        soft_wrap=True,
    )
