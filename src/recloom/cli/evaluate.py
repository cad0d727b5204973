"""`recloom evaluate`: a model to its metrics on what was held out."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import console, parse_cutoffs
from recloom.cli.ray_option import RayAddress, on_ray
from recloom.errors import ConfigError
from recloom.evaluation import Estimate, Evaluation
from recloom.files import replacing
from recloom.recommender import Recommender


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    protocol: Annotated[str | None, typer.Option(help="The protocol it was fitted under, to make sure.")] = None,
    k: Annotated[str, typer.Option(help="Cutoffs.")] = "5,10,20",
    slice_by: Annotated[list[str], typer.Option(help="Column whose values get a slice each. Repeatable.")] = [],  # noqa: B006
    category: Annotated[str | None, typer.Option(help="Column of the catalogue for miscalibration.")] = None,
    exposures: Annotated[
        Path | None, typer.Option(help="Log of what was shown and clicked: estimate how the model would do.")
    ] = None,
    reward: Annotated[str, typer.Option(help="Column of the exposures to estimate.")] = "clicked",
    clip: Annotated[float, typer.Option(help="Largest weight of an exposure.")] = 100.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metrics here too.")] = None,
    ray: RayAddress = None,
) -> None:
    """Rank the whole catalogue for every test case and print the metrics."""
    recommender = Recommender.load(model)
    fitted_under = recommender.config.split.protocol
    if protocol not in (None, fitted_under):
        raise ConfigError(
            f"{model} was fitted under {fitted_under} and has seen what {protocol} would ask;"
            f" fit another model with --protocol {protocol}"
        )
    cutoffs = parse_cutoffs(k)
    with on_ray(ray) as is_spread:
        rank = None
        if is_spread:
            from recloom.cluster.answering import rank_on_cluster

            rank = rank_on_cluster(model)
        evaluation = recommender.evaluate(cutoffs, slice_by=slice_by, category=category, rank=rank)
    written = evaluation.to_json()
    show_evaluation(evaluation)
    if exposures:
        cutoff = sorted(cutoffs)[len(cutoffs) // 2]
        estimates = recommender.estimate_clicks(exposures, reward=reward, k=cutoff, clip=clip)
        show_estimates(estimates, reward, cutoff)
        written["exposures"] = {name: estimate.__dict__ for name, estimate in estimates.items()}
    if json_file:
        with replacing(json_file) as beside:
            beside.write_text(json.dumps(written, indent=1), encoding="utf-8")


def show_evaluation(evaluation: Evaluation) -> None:
    """Print a table of metrics by cutoff, with 95 % intervals, and one of slices of the users asked."""
    everything = {n: f"{m.mean:.4f} ±{(m.high - m.low) / 2:.4f}" for n, m in evaluation.metrics.items()}
    everything |= {name: f"{value:.4f}" for name, value in evaluation.catalogue.items()}
    cutoffs = list(dict.fromkeys(name.split("@")[1] for name in everything if "@" in name))
    table = Table(title=f"{evaluation.model}, {evaluation.protocol}, ties {evaluation.ties}", title_justify="left")
    table.add_column("metric")
    for cutoff in cutoffs:
        table.add_column(f"@{cutoff}", justify="right")
    for name in dict.fromkeys(name.split("@")[0] for name in everything):
        # A metric of the whole ranking has no cutoff.
        cells = [everything.get(f"{name}@{cutoff}", "") for cutoff in cutoffs]
        table.add_row(name, *([everything[name], *cells[1:]] if name in everything else cells))
    console.print(table)
    middle = cutoffs[len(cutoffs) // 2]
    slices = Table(title=f"Of whom, NDCG@{middle}", title_justify="left")
    for column in ("slice", "users", f"NDCG@{middle}"):
        slices.add_column(column, justify="left" if column == "slice" else "right")
    for name, part in evaluation.slices.items():
        metric = part.metrics[f"NDCG@{middle}"]
        slices.add_row(name, f"{part.num_cases:,}", f"{metric.mean:.4f} ±{(metric.high - metric.low) / 2:.4f}")
    console.print(slices)
    left_out = f"; {evaluation.unusable_users:,} without history not asked" if evaluation.unusable_users else ""
    console.print(
        f"{evaluation.num_cases:,} users asked{left_out}; full ranking in {evaluation.seconds:.2f} s;"
        " ±: half the 95 % bootstrap interval over users",
        soft_wrap=True,
    )


def show_estimates(estimates: dict[str, Estimate], reward: str, cutoff: int) -> None:
    """Print what a log of exposures says of lists of a length."""
    table = Table(title=f"{reward} an exposure, lists of {cutoff}, from the log of exposures", title_justify="left")
    for column in ("estimate", "mean", "95 % interval", "exposures that count"):
        table.add_column(column, justify="left" if column == "estimate" else "right")
    for name, estimate in estimates.items():
        table.add_row(
            name, f"{estimate.mean:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}", f"{estimate.matched:,}"
        )
    console.print(table)
    if "IPS" not in estimates:
        console.print("Replay is right only if items were shown at random; a column propensity allows for the rest.")
