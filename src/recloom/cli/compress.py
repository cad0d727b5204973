"""`recloom compress`: a model to a smaller one."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console
from recloom.compression.compressing import METRIC, Compression, compress
from recloom.compression.measuring import Costs


def compress_model(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write the smaller model to.")],
    method: Annotated[
        list[str],
        typer.Option(help="distill: a small weave taught by the model; prune: fewer dimensions and units; pq: item"
                     " vectors in codes; int8: 8-bit weights. These two go with any: --method prune --method int8."),
    ],
    also: Annotated[
        list[Path], typer.Option(help="A further model that teaches, in distill; what all say on average is learned.")
    ] = [],  # noqa: B006
) -> None:  # fmt: skip
    """Make a model smaller, and show what that saves and what it costs."""
    with ShownProgress() as progress:
        compression = compress(model, out, method, progress, also)
    show_compression(compression)
    console.print(f"Wrote {out}. Next: recloom export {out} --format onnx --out EXPORT", soft_wrap=True)


def show_compression(compression: Compression) -> None:
    """Print what a model was and what it became."""
    before, after, change = compression.before, compression.after, compression.difference
    table = Table(title=f"Compressed by {' and '.join(compression.methods)}", title_justify="left")
    for column in ("", "before", "after", "change"):
        table.add_column(column, justify="right" if column else "left")
    for name, unit, digits in (
        ("disk_bytes", "MB", 2),
        ("resident_bytes", "MB", 0),
        ("answer_ms", "ms", 2),
        ("graph_bytes", "MB", 2),
        ("graph_resident_bytes", "MB", 0),
        ("graph_ms", "ms", 2),
    ):
        first, second = (_amount(costs, name) for costs in (before, after))
        if first is not None and second is not None:
            times = f"{first / second:.1f} times less" if second > 0 else ""
            table.add_row(LABELS[name], f"{first:.{digits}f} {unit}", f"{second:.{digits}f} {unit}", times)
    if change is not None:
        share = f" ({change.mean / compression.ndcg_before:+.1%})" if compression.ndcg_before else ""
        interval = f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]{share}"
        table.add_row(METRIC, f"{compression.ndcg_before:.4f}", f"{compression.ndcg_after:.4f}", interval)
    console.print(table)
    notes = [
        "An answer: one history to ten items, processor time, the median of answers in turns with the other model;"
        " memory: what loading and answering adds."
    ]
    if change is None:
        notes.append(f"{METRIC} is not known: the model has seen everything, so there is nothing to ask.")
    else:
        notes.append("In brackets: the 95 % paired bootstrap interval over users.")
    console.print(" ".join(notes), soft_wrap=True)


LABELS = {
    "disk_bytes": "tensors on disk",
    "resident_bytes": "memory",
    "answer_ms": "an answer",
    "graph_bytes": "exported graph",
    "graph_resident_bytes": "memory of the graph",
    "graph_ms": "an answer of the graph",
}


def _amount(costs: Costs, name: str) -> float | None:
    """Return a cost in the unit it is shown in."""
    value: float | None = getattr(costs, name)
    return value if value is None or not name.endswith("_bytes") else value / 1e6
