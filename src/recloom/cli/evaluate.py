"""`recloom evaluate`: a model to its metrics on what was held out."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import console, parse_cutoffs
from recloom.errors import ConfigError
from recloom.evaluation import METRICS, Evaluation
from recloom.files import replacing
from recloom.recommender import Recommender


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    protocol: Annotated[str | None, typer.Option(help="The protocol it was fitted under, to make sure.")] = None,
    k: Annotated[str, typer.Option(help="Cutoffs.")] = "5,10,20",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metrics here too.")] = None,
) -> None:
    """Rank the whole catalogue for every test case and print the metrics."""
    recommender = Recommender.load(model)
    fitted_under = recommender.config.split.protocol
    if protocol not in (None, fitted_under):
        raise ConfigError(
            f"{model} was fitted under {fitted_under} and has seen what {protocol} would ask;"
            f" fit another model with --protocol {protocol}"
        )
    evaluation = recommender.evaluate(parse_cutoffs(k))
    show_evaluation(evaluation)
    if json_file:
        with replacing(json_file) as beside:
            beside.write_text(json.dumps(evaluation.to_json(), indent=1), encoding="utf-8")


def show_evaluation(evaluation: Evaluation) -> None:
    """Print a table of metrics by cutoff, with 95 % intervals."""
    cutoffs = list(dict.fromkeys(name.split("@")[1] for name in evaluation.metrics))
    table = Table(title=f"{evaluation.model}, {evaluation.protocol}, ties {evaluation.ties}", title_justify="left")
    table.add_column("metric")
    for cutoff in cutoffs:
        table.add_column(f"@{cutoff}", justify="right")
    for name in METRICS:
        cells = [evaluation.metrics[f"{name}@{cutoff}"] for cutoff in cutoffs]
        table.add_row(name, *(f"{cell.mean:.4f} ±{(cell.high - cell.low) / 2:.4f}" for cell in cells))
    console.print(table)
    left_out = f"; {evaluation.unusable_users:,} without history not asked" if evaluation.unusable_users else ""
    console.print(
        f"{evaluation.num_cases:,} users asked{left_out}; full ranking in {evaluation.seconds:.2f} s;"
        " ±: half the 95 % bootstrap interval over users",
        soft_wrap=True,
    )
