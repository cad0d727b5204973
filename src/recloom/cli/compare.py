"""`recloom compare`: a dataset and names of models to one table and a report."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from recloom.cli.console import ShownProgress, console, messages, parse_cutoffs, parse_duration
from recloom.comparison import Comparison, Pair, compare, parse_entries
from recloom.comparison.report import FORMATS, write_report
from recloom.config import Tables, parse_settings, read_run_file
from recloom.dataset import FILE_NAME, Dataset
from recloom.errors import ConfigError, RecloomError
from recloom.files import replacing

STRONG = "popular,popular-recent,markov,item-knn,user-knn,stan,mf,ease,content-tfidf,weave"


def compare_models(
    dataset: Annotated[Path, typer.Argument(help="Folder that recloom prepare wrote, or a log of what people did.")],
    out: Annotated[Path, typer.Option(help="Report to write: .html, .md, .tex or .json.")],
    models: Annotated[str, typer.Option(help="Models, or folders of fitted ones.")] = STRONG,
    items: Annotated[Path | None, typer.Option(help="What the items say, where the log is given itself.")] = None,
    variant: Annotated[
        list[str],
        typer.Option(help="A model with other settings: 'LABEL=weave model.fusion=id training.epochs=20'. Repeatable."),
    ] = [],  # noqa: B006
    protocol: Annotated[str | None, typer.Option(help="temporal (default), leave-one-out or user-disjoint.")] = None,
    ties: Annotated[str | None, typer.Option(help="strict or file: what equal timestamps mean.")] = None,
    encoder: Annotated[str | None, typer.Option(help="What reads item text, as for recloom fit.")] = None,
    k: Annotated[str, typer.Option(help="Cutoffs; the middle one decides the order of the table.")] = "5,10,20",
    seeds: Annotated[int, typer.Option(help="How often to fit what depends on chance.")] = 1,
    windows: Annotated[int, typer.Option(help="Temporal: successive stretches of time to test on.")] = 1,
    slice_by: Annotated[list[str], typer.Option(help="Column whose values get a slice each. Repeatable.")] = [],  # noqa: B006
    category: Annotated[str | None, typer.Option(help="Column of the catalogue for calibration and the map.")] = None,
    budget: Annotated[str | None, typer.Option(help="Most time to train each model: 90s, 10m, 1h.")] = None,
    settings: Annotated[list[str], typer.Option("--set", help="Any option of all models, as for recloom fit.")] = [],  # noqa: B006
    config: Annotated[Path | None, typer.Option(help="Run file in TOML for all models.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here too.")] = None,
) -> None:
    """Fit every model under one split, ask all of them the same, test who is better, and write a report."""
    if out.suffix not in FORMATS:
        raise ConfigError(f"a report ends in {', '.join(FORMATS)}; {out} does not")
    for path in filter(None, (out, json_file)):
        _check_writable(path)
    tables: Tables = read_run_file(config) if config else {}
    tables.pop("recloom", None)
    short: dict[str, dict[str, Any]] = {
        "split": {"protocol": protocol, "ties": ties},
        "encoder": {"name": encoder},
        "training": {"budget": parse_duration(budget) if budget else None},
    }
    for more in (short, parse_settings(settings)):
        for table, values in more.items():
            tables.setdefault(table, {}).update({name: v for name, v in values.items() if v is not None})
    variants = [_variant(text) for text in variant]
    labels = [label for label, _ in variants]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"{twice[0]!r} is named twice; give one of them another label")
    entries = parse_entries([name.strip() for name in models.split(",") if name.strip()], dict(variants))
    with ShownProgress() as progress:
        comparison = compare(
            _open(dataset, items),
            entries,
            settings=tables,
            seeds=seeds,
            cutoffs=parse_cutoffs(k),
            windows=windows,
            slice_by=slice_by,
            category=category,
            name=dataset.name,
            command=shlex.join(["recloom", *sys.argv[1:]]),
            progress=progress,
        )
    write_report(comparison, out)
    if json_file:
        with replacing(json_file) as beside:
            beside.write_text(json.dumps(comparison.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
    show_comparison(comparison)
    if all(result.error is not None for result in comparison.models):
        raise RecloomError(f"no model could be fitted; {out} says why")
    console.print(
        f"Wrote {out}. Open it to see slices, curves and what the models show to single people.", soft_wrap=True
    )


def show_comparison(comparison: Comparison) -> None:
    """Print the table of models, best first, and what speaks against it."""
    main = comparison.main_metric
    cutoff = main.split("@")[1]
    hits, coverage = f"HR@{cutoff}", f"coverage@{cutoff}"
    title = f"{comparison.name}, {comparison.split['protocol']}, ties {comparison.split['ties']}"
    table = Table(title=escape(title), title_justify="left")
    for column in ("model", main, hits, "coverage", "new items", "fit", "rank", "against the best"):
        table.add_column(column, justify="left" if column in ("model", "against the best") else "right")
    best = comparison.models[0].label
    against = {pair.second: pair for pair in comparison.pairs if pair.first == best}
    for result in comparison.models:
        if result.error is not None:
            table.add_row(escape(result.label), "failed", *[""] * 5, escape(result.error))
            continue
        metric = result.metrics[main]
        new = result.slices.get("new item")
        pair = against.get(result.label)
        table.add_row(
            escape(result.label),
            f"{metric.mean:.4f} ±{(metric.high - metric.low) / 2:.4f}",
            f"{result.metrics[hits].mean:.4f}",
            f"{result.catalogue[coverage]:.1%}",
            f"{new.metrics[main].mean:.4f}" if new else "",
            f"{result.fit_seconds:.1f} s",
            f"{result.rank_seconds:.1f} s",
            _against(pair) if pair else "",
        )
    console.print(table)
    console.print(
        f"{comparison.num_cases:,} users asked, full ranking; ±: half the 95 % bootstrap interval over users; tie: the"
        " paired permutation test with Holm's correction finds no difference at 5 %",
        soft_wrap=True,
    )
    for finding in comparison.findings + [f for result in comparison.models for f in result.findings]:
        messages.print(f"{'leak' if finding.is_leak else 'warning'}: {finding.what}", soft_wrap=True, markup=False)


def _against(pair: Pair) -> str:
    """Say how far a model is behind the best one."""
    if pair.verdict == "tie":
        return "tie"
    return f"{-pair.difference.mean:.4f}, p {'< .001' if pair.adjusted_p < 0.001 else f'{pair.adjusted_p:.3f}'}"


def _open(path: Path, items: Path | None) -> Dataset:
    """Open a dataset, or make one of two files that lasts as long as the command."""
    if not path.is_file() or path.name == FILE_NAME:
        if items is not None:
            raise ConfigError("--items goes with a log; the dataset has its items already")
        return Dataset.open(path.parent if path.is_file() else path)
    return Dataset.from_files(path, items)


def _variant(text: str) -> tuple[str, tuple[str, Tables]]:
    label, equals, rest = text.partition("=")
    words = rest.split()
    if not (label.strip() and equals and words):
        raise ConfigError(f"--variant {text!r} is not of the form 'LABEL=MODEL table.option=value ...'")
    try:
        return label.strip(), (words[0], parse_settings(words[1:]))
    except ConfigError as error:
        raise ConfigError(f"--variant {label.strip()}: {str(error).removeprefix('--set ')}") from None


def _check_writable(path: Path) -> None:
    """Find out before hours of fitting that there is nowhere to write to."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it, or write elsewhere")
    try:
        with replacing(path.with_name(f".{path.name}.trial")) as beside:
            beside.write_text("")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another place") from None
    path.with_name(f".{path.name}.trial").unlink()
