"""`recloom tune`: a dataset and a model to a run file with better settings."""

import csv
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console, parse_duration
from recloom.cli.ray_option import RayAddress, on_ray
from recloom.config import Tables, parse_settings, read_run_file
from recloom.dataset import Dataset
from recloom.errors import ConfigError
from recloom.files import replacing

SHOWN_TRIALS = 5


def tune(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the best settings and the trials; going on where it was.")],
    model: Annotated[str, typer.Option(help="Model to tune.")] = "weave",
    trials: Annotated[int, typer.Option(help="Settings to try in all.")] = 30,
    budget: Annotated[str | None, typer.Option(help="Most time: 10m, 2h; the trial at hand is finished.")] = None,
    protocol: Annotated[str | None, typer.Option(help="temporal (default), leave-one-out or user-disjoint.")] = None,
    seed: Annotated[int, typer.Option(help="Decides what is tried.")] = 0,
    settings: Annotated[list[str], typer.Option("--set", help="An option that stays as it is. Repeatable.")] = [],  # noqa: B006
    config: Annotated[Path | None, typer.Option(help="Run file in TOML with options that stay.")] = None,
    ray: RayAddress = None,
) -> None:
    """Look for better settings by validation alone, and say whether the gain is more than luck."""
    from recloom.tuning import tune as search  # optuna takes a second to import

    if out.is_file():
        raise ConfigError(f"{out} is a file; name a folder")
    tables: Tables = read_run_file(config) if config else {}
    tables.pop("recloom", None)
    short: dict[str, dict[str, Any]] = {"split": {"protocol": protocol}}
    for more in (short, parse_settings(settings)):
        for table, values in more.items():
            tables.setdefault(table, {}).update({name: v for name, v in values.items() if v is not None})
    with on_ray(ray) as is_shared, ShownProgress() as progress:
        tuning = search(
            Dataset.open(dataset),
            model,
            settings=tables,
            trials=trials,
            budget=parse_duration(budget) if budget else None,
            folder=out,
            seed=seed,
            progress=progress,
            on_ray=is_shared,
        )
    best = out / "best.toml"
    with replacing(best) as beside:
        beside.write_text(
            tomli_w.dumps({"recloom": {"model": model}, **{t: v for t, v in tuning.settings.items() if v}}),
            encoding="utf-8",
        )
    names = sorted({name for trial in tuning.trials for name in trial.settings})
    with replacing(out / "trials.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["trial", "validation", "seconds", *names])
        rows.writerows([t.number, t.value, t.seconds, *(t.settings.get(name) for name in names)] for t in tuning.trials)
    done = sorted((t for t in tuning.trials if t.value is not None), key=lambda t: -(t.value or 0))
    shown = Table(title=f"{model}, the best of {len(tuning.trials)} trials", title_justify="left")
    for column in ("trial", "validation", *names):
        shown.add_column(column, justify="right")
    shown.add_row("defaults", f"{tuning.default:.4f}", *[""] * len(names))
    for trial in done[:SHOWN_TRIALS]:
        shown.add_row(str(trial.number), f"{trial.value:.4f}", *(_short(trial.settings.get(name)) for name in names))
    console.print(shown)
    gain = tuning.gain
    verdict = "more than luck" if tuning.is_real else "inside the noise: the defaults will do"
    console.print(
        f"On validation users who had no part in choosing, the best gains {gain.mean:+.4f} ({gain.low:+.4f} to"
        f" {gain.high:+.4f}, p {gain.p_value:.3f}) over the defaults: {verdict}.",
        soft_wrap=True,
    )
    console.print(f"Wrote {best}. Next: recloom fit {dataset} --config {best} --out MODEL", soft_wrap=True)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
