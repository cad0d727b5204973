"""What compressing a model saves and costs: a table for docs/compression.md.

    python benchmarks/compression.py MODEL [--methods int8 --methods prune --methods prune,int8 ...]

MODEL is a folder that `recloom fit` wrote. Every variant starts from it; nothing is kept.
"""

import argparse
import tempfile
from pathlib import Path

from recloom.compression.compressing import compress
from recloom.training import hardware, versions

VARIANTS = ["int8", "pq,int8", "prune", "prune,int8", "distill", "distill,int8"]
COLUMNS = ("disk_bytes", "resident_bytes", "answer_ms", "graph_bytes", "graph_resident_bytes", "graph_ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--methods", action="append", help="joined by commas; repeatable")
    options = parser.parse_args()
    print("| | MB | memory, MB | ms | graph, MB | its memory, MB | its ms | NDCG@10 | difference [95 %] |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, methods in enumerate(options.methods or VARIANTS):
        with tempfile.TemporaryDirectory() as folder:
            found = compress(options.model, Path(folder) / "model", methods.split(","))
        if number == 0:
            print(row("as it was", found.before, found.before, found.ndcg_before, ""), flush=True)
        change = found.difference
        interval = f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]" if change else ""
        print(row(methods.replace(",", " and "), found.before, found.after, found.ndcg_after, interval), flush=True)
    print(f"\n{versions()}\n{hardware()}")


def row(name, before, costs, ndcg, interval) -> str:
    cells = [cell(column, getattr(before, column), getattr(costs, column)) for column in COLUMNS]
    return f"| {' | '.join([name, *cells, '' if ndcg is None else f'{ndcg:.4f}', interval])} |"


def cell(column, before, value) -> str:
    """Return a cost; of a time also how many times less it is than that of the model as it was, asked in turns."""
    if value is None:
        return ""
    if column.endswith("_bytes"):
        return f"{value / 1e6:.1f}"
    return f"{value:.2f}" if value == before else f"{value:.2f} ({before / value:.1f} times less)"


if __name__ == "__main__":
    main()
