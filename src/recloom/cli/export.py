"""`recloom export`: a model to a folder that runs without recloom."""

from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import console
from recloom.compression.onnx_export import export_onnx
from recloom.errors import ConfigError
from recloom.recommender import Recommender


def export(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit or compress wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    format_: Annotated[str, typer.Option("--format", help="onnx: for ONNX Runtime.")] = "onnx",
) -> None:
    """Write a graph that ONNX Runtime alone can serve, and hold its answers against the model's."""
    if format_ != "onnx":
        raise ConfigError(f"unknown format {format_!r}; there is: onnx")
    parity = export_onnx(Recommender.load(model), out)
    others = f", {parity.near_ties} differ only in the order of near ties" if parity.near_ties else ""
    console.print(
        f"Held against the model on {parity.histories:,} histories: scores differ by at most"
        f" {parity.largest_difference:.1e}; the top 10 are identical for {parity.identical_top_10:,}{others}.\n"
        f"Wrote {out}. Next: python examples/serve_onnx.py {out}",
        soft_wrap=True,
    )
