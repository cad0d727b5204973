"""How long preparing takes, and how much memory: MovieLens 1M, and synthetic logs of 1 and 20 million interactions.

Each run is a process of its own, so that its peak memory is its own. Run from the repository:
`python benchmarks/prepare_speed.py`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from recloom.training import hardware, versions

ROOT = Path(__file__).parents[1]
ML_1M = ROOT.parent / "shared" / "data" / "ml-1m"
PREPARE = "from recloom.cli import main; import sys; sys.argv[0] = 'recloom'; main()"


def synthetic_log(path: Path, interactions: int) -> None:
    """Write a log in time order: users all over it, items by a long-tailed popularity, ids as words."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, max(2, interactions // 145), interactions)
    items = (27_000 * rng.random(interactions) ** 3).astype(np.int64)
    times = np.sort(rng.integers(1_500_000_000, 1_700_000_000, interactions))
    table = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    table.with_columns(pl.format("u{}", "user_id").alias("user_id")).write_csv(path)


def prepare(*arguments: str) -> tuple[float, float]:
    """Return the seconds and the peak gigabytes of one `recloom prepare` in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", PREPARE, "prepare", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"prepare failed on {arguments}")
    return time.monotonic() - began, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/dataset"]
        if ML_1M.exists():
            log, items = ML_1M / "interactions.csv.gz", ML_1M / "items.csv.gz"
            rows.append(
                ("ml-1m, csv.gz", 999_611, *min(prepare(str(log), "--items", str(items), *out) for _ in range(3)))
            )
        for interactions in (1_000_000, 20_000_000):
            log = Path(folder) / "log.csv"
            synthetic_log(log, interactions)
            rows.append(("synthetic, csv", interactions, *prepare(str(log), *out)))
            log.unlink()
    lines = ["| log | interactions | seconds | microseconds a row | peak GB |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {n:,} | {s:.1f} | {s / n * 1e6:.2f} | {gb:.2f} |" for name, n, s, gb in rows]
    lines += ["", f"A row of the large log costs {rows[-1][2] / 20 / rows[-2][2]:.1f} times a row of the small one."]
    lines += ["", f"Whole processes of `recloom prepare`, start-up included; {versions()}; {hardware()}."]
    page = "# Preparing: time and memory\n\nWritten by `prepare_speed.py`.\n\n" + "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "prepare-speed.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
