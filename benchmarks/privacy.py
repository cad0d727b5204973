"""What privacy costs: NDCG@10 on the test of models fitted under several epsilons.

    python benchmarks/privacy.py DATASET --epsilons inf,8,2 --seeds 0 --out privacy.jsonl [--set table.option=value]
    python benchmarks/privacy.py DATASET --out privacy.jsonl --plot privacy.svg

`inf` is `weave` without privacy, `1e5` the private set-up with so little noise that it promises nothing, `popular` the
same list for everybody. The second form draws what the first has written, and prints it as a table.
"""

import argparse
import json
import time
from pathlib import Path

import altair as alt
import polars as pl

from recloom import Dataset, Recommender
from recloom.config import parse_settings

SPLIT = {"protocol": "leave-one-out"}


def run(dataset: Dataset, epsilon: str, seed: int, options: list[str]) -> dict:
    settings = parse_settings(options) | {"split": SPLIT}
    settings.setdefault("training", {})["seed"] = seed
    if epsilon not in ("inf", "popular"):
        settings["privacy"] = {"epsilon": float(epsilon), "seed": seed, **settings.get("privacy", {})}
    began = time.process_time()
    recommender = Recommender.fit(dataset, "popular" if epsilon == "popular" else "weave", settings=settings)
    cpu_seconds = time.process_time() - began
    metrics = recommender.evaluate([10]).metrics
    return {
        "epsilon": epsilon,
        "seed": seed,
        "options": options,
        "metrics": {name: vars(metric) for name, metric in metrics.items() if name in ("NDCG@10", "HR@10")},
        "privacy": recommender.run.privacy,
        "cpu_seconds": round(cpu_seconds),
        "versions": recommender.run.versions,
        "hardware": recommender.run.hardware,
    }


def show(path: Path, plot: Path) -> None:
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [
        {
            "epsilon": r["epsilon"],
            "seed": r["seed"],
            "NDCG@10": r["metrics"]["NDCG@10"]["mean"],
            "low": r["metrics"]["NDCG@10"]["low"],
            "high": r["metrics"]["NDCG@10"]["high"],
            "spent": r["privacy"].get("epsilon"),
            "noise": r["privacy"].get("noise_multiplier"),
            "CPU s": r["cpu_seconds"],
        }
        for r in runs
    ]
    table = pl.DataFrame(rows)
    with pl.Config(
        tbl_formatting="MARKDOWN", tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True, tbl_rows=99
    ):
        print(table)
    points = table.filter(~pl.col("epsilon").is_in(["inf", "popular", "1e5"])).with_columns(
        pl.col("epsilon").cast(float)
    )
    x = alt.X("epsilon:Q", scale=alt.Scale(type="log"), title="epsilon", axis=alt.Axis(values=[2, 4, 8, 16, 32]))
    y = alt.Y("NDCG@10:Q", scale=alt.Scale(zero=True), title="NDCG@10, test")
    chart = alt.Chart(points).mark_point(filled=True, size=60).encode(x=x, y=y)
    chart += alt.Chart(points).mark_line().encode(x=x, y=alt.Y("mean(NDCG@10):Q"))
    chart += alt.Chart(points).mark_rule(opacity=0.4).encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    names = {"inf": "weave without privacy", "1e5": "private set-up, hardly any noise", "popular": "popular"}
    for name, label in names.items():
        levels = table.filter(pl.col("epsilon") == name)
        if len(levels):
            level = pl.DataFrame({"NDCG@10": [levels["NDCG@10"].mean()], "label": [label]})
            chart += alt.Chart(level).mark_rule(strokeDash=[4, 4]).encode(y=y)
            chart += alt.Chart(level).mark_text(align="left", dy=-6, x=5).encode(y=y, text="label")
    chart.properties(width=480, height=280).save(str(plot))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--epsilons", default="inf,32,16,8,4,2")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", dest="options", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.plot:
        show(options.out, options.plot)
        return
    dataset = Dataset.open(options.dataset)
    for seed in map(int, options.seeds.split(",")):
        for epsilon in options.epsilons.split(","):
            record = run(dataset, epsilon, seed, options.options)
            print(json.dumps(record), flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
