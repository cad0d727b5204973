"""`recloom distill`: a catalogue's texts and a language model to a smaller language model."""

from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import ShownProgress, console, parse_duration
from recloom.config import build, parse_settings
from recloom.dataset import Dataset
from recloom.encoders import DistillationConfig, distill_encoder
from recloom.errors import ConfigError
from recloom.fitting import CACHE_NAME


def distill(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write the smaller language model to.")],
    encoder: Annotated[str, typer.Option(help="The teacher: minilm, multilingual, a folder, a hub name.")] = "auto",
    budget: Annotated[str | None, typer.Option(help="Most time to train: 90s, 10m, 1h.")] = None,
    settings: Annotated[
        list[str], typer.Option("--set", help="Any option: distillation.num_layers=1. Repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Teach a small encoder to read the catalogue as a large one does."""
    tables = parse_settings(settings)
    if unknown := sorted(set(tables) - {"distillation", "encoder"}):
        raise ConfigError(f"unknown table [{unknown[0]}]; distilling an encoder reads distillation and encoder")
    if further := sorted(set(tables.get("encoder", {})) - {"template"}):
        raise ConfigError(f"encoder.{further[0]} has no meaning here; name the teacher with --encoder")
    seconds = {"budget": parse_duration(budget)} if budget else {}
    opened = Dataset.open(dataset)
    with ShownProgress() as progress:
        record = distill_encoder(
            opened,
            out,
            encoder=encoder,
            template=tables.get("encoder", {}).get("template"),
            config=build(DistillationConfig, "distillation", tables.get("distillation", {}) | seconds, {}),
            cache=opened.path.with_name(CACHE_NAME),
            progress=lambda done, total: progress("teaching", done, total),
        )
    console.print(
        f"On {record.examined:,} texts it had not read, its vectors have the cosine {record.cosine:.3f} with its"
        f" teacher's ({record.cosine_5th_percentile:.3f} for the 5th percentile).\n"
        f"Weights: {record.bytes / 1e6:.1f} MB, the teacher's {record.teacher_bytes / 1e6:.1f} MB; texts in a second of"
        f" processor time: {record.texts_per_second:,.0f}, the teacher {record.teacher_texts_per_second:,.0f}.\n"
        f"Wrote {out}. Next: recloom fit {dataset} --out MODEL --encoder {out}",
        soft_wrap=True,
    )
