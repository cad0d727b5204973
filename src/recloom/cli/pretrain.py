"""`recloom pretrain`: datasets to what carries over to other catalogues."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recloom.cli.console import ShownProgress, console, messages, parse_duration
from recloom.cli.join import named_datasets
from recloom.config import parse_settings
from recloom.pretraining import pretrain as pretrain_on
from recloom.training import remove_checkpoint


def pretrain(
    datasets: Annotated[list[Path], typer.Argument(help="Folders that recloom prepare wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write the pretrained model to.")],
    encoder: Annotated[
        str | None, typer.Option(help="minilm, multilingual, hashing, openai:MODEL, a folder or a hub name.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Most time to train: 90s, 10m, 1h.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything that is random.")] = None,
    settings: Annotated[
        list[str], typer.Option("--set", help="Any option: pretraining.interactions=100000. Repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Learn from texts what carries over to other datasets, for fit --pretrained. Killed, the same command goes on."""
    tables = parse_settings(settings)
    short: dict[str, dict[str, Any]] = {
        "encoder": {"name": encoder},
        "training": {"budget": parse_duration(budget) if budget else None, "seed": seed},
    }
    for table, values in short.items():
        tables.setdefault(table, {}).update({name: value for name, value in values.items() if value is not None})
    checkpoint = out.with_name(f".{out.name}.checkpoint")
    with ShownProgress() as progress:
        result = pretrain_on(named_datasets(datasets), out, settings=tables, checkpoint=checkpoint, progress=progress)
    remove_checkpoint(checkpoint)
    size = sum(path.stat().st_size for path in out.iterdir())
    if result.stopped == "interrupted":
        messages.print("warning: interrupted; the best so far was kept", soft_wrap=True)
    best = f"best epoch {result.best_epoch} of {len(result.curve)}, stopped by {result.stopped}"
    console.print(
        f"Pretrained on {len(datasets)} datasets; {best}; validation NDCG@10 {result.best_validation or 0:.4f},"
        f" the mean over the datasets.\nWrote {out} ({size / 1e6:.1f} MB). Next: recloom fit DATASET --pretrained {out}"
        " --out MODEL",
        soft_wrap=True,
    )
