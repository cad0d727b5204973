"""`recloom backtest`: a dataset to an answer to how often its model should learn."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console
from recloom.config import parse_settings
from recloom.dataset import Dataset
from recloom.files import replacing
from recloom.lifecycle.backtesting import Habit, to_json
from recloom.lifecycle.backtesting import backtest as replay
from recloom.lifecycle.backtesting_report import HEADS, check_format, rows, write_backtest


def backtest(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote.")],
    out: Annotated[Path, typer.Option(help="Report to write: .html, .md or .json.")],
    steps: Annotated[int, typer.Option(help="Stretches of the log's end to ask about.")] = 5,
    start: Annotated[float, typer.Option(help="Share of the interactions before the first of them.")] = 0.7,
    habits: Annotated[
        str, typer.Option(help="never, update, update:2 (every other step), retrain, window:30 (on the last 30 days).")
    ] = "never,update,update:2,retrain",
    model: Annotated[str, typer.Option(help="Model to fit.")] = "weave",
    settings: Annotated[list[str], typer.Option("--set", help="Any option, as for recloom fit. Repeatable.")] = [],  # noqa: B006
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here too.")] = None,
) -> None:
    """Replay the end of a log under several habits of learning, and say which is worth its cost."""
    check_format(out)
    chosen = [Habit.parse(text) for text in habits.split(",") if text.strip()]
    with ShownProgress() as progress:
        result = replay(
            Dataset.open(dataset),
            chosen,
            model=model,
            settings=parse_settings(settings),
            steps=steps,
            start=start,
            progress=progress,
        )
    write_backtest(result, out, dataset.name)
    if json_file:
        with replacing(json_file) as beside:
            beside.write_text(json.dumps(to_json(result), indent=1, ensure_ascii=False), encoding="utf-8")
    table = Table(title=f"{model}, {sum(result.cases):,} questions in {steps} steps", title_justify="left")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "habit" else "right")
    for row in rows(result):
        table.add_row(*row)
    console.print(table)
    console.print(f"{result.advice}\nWrote {out}.", soft_wrap=True, markup=False)
