"""recloom, RecTools and RecBole on the same split, cores and time: one command, one table.

    python benchmarks/peers/compare.py DATASET [--budget 600] [--seeds 0] [--out benchmarks/peers.md]

DATASET is a folder that `recloom prepare` wrote. Leave-one-out, file order, full ranking without seen items. Each peer
trains in an environment of its own, made beside this file on the first run, within the budget; its ten best items a
user are scored by recloom's own metric. The peers also learn from the validation interactions, recloom does not.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
import polars as pl

from recloom import Dataset, Recommender
from recloom.dataset import SplitConfig, split_dataset
from recloom.evaluation import metric_values, with_intervals
from recloom.training import hardware, versions

HERE = Path(__file__).parent
PEERS = {
    "rectools": ["rectools[torch]==0.19.0"],
    "recbole": ["recbole==1.2.1", "numpy==1.26.4", "pandas<2.3", "scipy<1.14"],
}
TORCH = "torch==2.13.0"
SETTINGS = {
    "recloom": "defaults",
    "rectools": "SASRec, the library's defaults (width 256, two blocks), sampled softmax with 256 negatives",
    "recbole": "SASRec, the library's defaults (width 64, two blocks), cross-entropy over the catalogue",
}


def environment(peer: str) -> Path:
    folder = HERE / ".environments" / peer
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"installing {peer} into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        for packages in ([TORCH], PEERS[peer]):
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (folder / ".installed").touch()
    return python


def export(dataset: Dataset, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write every history that the test asks after; return the users and what they took next."""
    test = split_dataset(dataset, SplitConfig(protocol="leave-one-out")).test
    length = test.history_end - test.history_start
    position = np.concatenate([np.arange(*ends) for ends in zip(test.history_start, test.history_end, strict=True)])
    columns = {
        "user_id": np.repeat(test.user_index, length),
        "item_id": dataset.item_index[position],
        "order": np.arange(len(position)),  # file order, whatever the timestamps say
    }
    pl.DataFrame(columns).write_csv(path)
    return test.user_index, dataset.item_index[test.target]


def run_peer(peer: str, log: Path, budget: float, seed: int, users: np.ndarray) -> tuple[np.ndarray, float, float]:
    lists = log.with_name(f"{peer}.npz")
    command = [environment(peer), HERE / f"train_{peer}.py", log, lists, "--budget", str(budget), "--seed", str(seed)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = np.load(lists)
    row = {int(user): number for number, user in enumerate(made["users"])}
    return made["items"][[row[int(user)] for user in users]], float(made["seconds"]), float(made["epochs"])


def run_recloom(dataset: Dataset, budget: float, seed: int) -> tuple[np.ndarray, float, float]:
    settings = {"split": {"protocol": "leave-one-out"}, "training": {"budget": budget, "seed": seed}}
    began = time.monotonic()
    recommender = Recommender.fit(dataset, settings=settings)
    seconds = time.monotonic() - began
    test = split_dataset(dataset, recommender.config.split).test
    return recommender.rank_cases(test, 10, False).item_index_BK, seconds, len(recommender.run.curve)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--budget", type=float, default=600.0)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=HERE.with_name("peers.md"))
    options = parser.parse_args()
    dataset = Dataset.open(options.dataset)
    for peer in PEERS:
        environment(peer)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        users, target = export(dataset, log)
        for seed in map(int, options.seeds.split(",")):
            for system in ("recloom", *PEERS):
                if system == "recloom":
                    items, seconds, epochs = run_recloom(dataset, options.budget, seed)
                else:
                    items, seconds, epochs = run_peer(system, log, options.budget, seed, users)
                ndcg = with_intervals(metric_values(items, target, [10]))["NDCG@10"]
                rows.append(
                    f"| {system} | {SETTINGS[system]} | {seed} | {ndcg.mean:.4f} ({ndcg.low:.4f} to {ndcg.high:.4f}) |"
                    f" {seconds:.0f} | {epochs:.1f} |"
                )
                print(rows[-1], flush=True)
    page = [
        f"# NDCG@10 after {options.budget:.0f} seconds of training, beside other systems", "",
        f"Written by `{Path(sys.argv[0]).name}` on {options.dataset.name}: leave-one-out, file order, full ranking",
        f"over {len(dataset.items):,} items, {len(users):,} users, seen items left out. Seconds include reading item",
        "text (recloom) and stop at the end of a step.", "",
        "| system | settings | seed | NDCG@10 (95 % interval) | seconds | epochs |", "|---|---|---|---|---|---|",
        *rows, "",
        f"Data {dataset.fingerprint}; {PEERS}; {versions()}; {hardware()}.", "",
    ]  # fmt: skip
    options.out.write_text("\n".join(page))


if __name__ == "__main__":
    main()
