"""`recloom export`: a model to where it runs, or is kept, without recloom."""

from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import console
from recloom.compression.onnx_export import export_onnx
from recloom.errors import ConfigError
from recloom.lifecycle.mlflow_export import export_mlflow
from recloom.recommender import Recommender


def export(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit or compress wrote.")],
    out: Annotated[str, typer.Option(help="Folder to write to; for mlflow: its tracking URI, as sqlite:///runs.db.")],
    format_: Annotated[
        str, typer.Option("--format", help="onnx: a graph for ONNX Runtime. mlflow: a run for each version.")
    ] = "onnx",
) -> None:
    """Write a graph that ONNX Runtime alone can serve, and hold its answers against the model's; or tell MLflow."""
    if format_ == "mlflow":
        logged = export_mlflow(model, out)
        what = f"Logged {', '.join(logged)}" if logged else "Nothing was new; the current version is marked"
        console.print(f"{what} in the experiment {model.resolve().name} at {out}.", soft_wrap=True, markup=False)
        return
    if format_ != "onnx":
        raise ConfigError(f"unknown format {format_!r}; there are: onnx, mlflow")
    parity = export_onnx(Recommender.load(model), Path(out))
    others = f", {parity.near_ties} differ only in the order of near ties" if parity.near_ties else ""
    console.print(
        f"Held against the model on {parity.histories:,} histories: scores differ by at most"
        f" {parity.largest_difference:.1e}; the top 10 are identical for {parity.identical_top_10:,}{others}.\n"
        f"Wrote {out}. Next: python examples/serve_onnx.py {out}",
        soft_wrap=True,
    )
