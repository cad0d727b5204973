"""`recloom pretrain`: datasets to what carries over to other catalogues."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console, messages, parse_duration
from recloom.cli.join import named_datasets
from recloom.config import parse_settings
from recloom.pretraining import SHARES
from recloom.pretraining import pretrain as pretrain_on


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
        done = pretrain_on(named_datasets(datasets), out, settings=tables, checkpoint=checkpoint, progress=progress)
    size = sum(path.stat().st_size for path in out.iterdir())
    if done.result.stopped == "interrupted":
        messages.print("warning: interrupted; the best so far was kept", soft_wrap=True)
    if done.left_out:
        shown = Table("left out", "best epoch", *(f"network at {share:g}" for share in SHARES), title="NDCG@10")
        for name, tried in done.left_out.items():
            shown.add_row(name, str(tried.best_epoch), *(f"{value:.4f}" for value in tried.ndcg_at_10.values()))
        console.print(shown)
    console.print(
        f"Pretrained on {len(datasets)} dataset{'s' * (len(datasets) > 1)} for {done.result.best_epoch} epochs, the"
        f" network at {done.network_share:g}; NDCG@10 {done.result.best_validation or 0:.4f},"
        f" {'the mean over those left out' if done.left_out else 'on validation'}.\nWrote {out} ({size / 1e6:.1f} MB)."
        f" Next: recloom fit DATASET --pretrained {out} --out MODEL",
        soft_wrap=True,
    )
