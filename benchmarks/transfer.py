"""What a pretrained `weave` is worth on datasets it has not seen, and what a person's other catalogue is worth.

    python benchmarks/transfer.py titles A B C …            # titles that two sets share
    recloom pretrain A B C … --out PRETRAINED
    python benchmarks/transfer.py held-out DATASET --protocol temporal --pretrained PRETRAINED --out transfer.jsonl
    python benchmarks/transfer.py overlap DATASET --column genres --value Action --out overlap.jsonl

`held-out` asks every model the same test cases: of the whole dataset, with whole histories. Only what the model has
learned from differs: a share of the people (`--shares`), who are drawn once a seed, the smaller shares being part of
the larger ones. `overlap` parts a catalogue in two by what a column says, and fits a model on each half alone and one
on both, joined with the same people. One line of JSON a run; what is there already is not run again.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recloom import Dataset, Recommender
from recloom.config import parse_settings
from recloom.dataset import Cases, Split, SplitConfig, gather, join, log_of, split_dataset
from recloom.evaluation import metric_values
from recloom.evaluation.significance import paired_difference
from recloom.events import Entities, Interactions
from recloom.models import Ranker
from recloom.training import hardware, versions


def titles(options: argparse.Namespace) -> None:
    """Print how many titles, lower-cased, two sets have in common."""
    known = {}
    for folder in options.datasets:
        table = Dataset.open(folder).item_table
        known[folder.name] = set(table["title"].drop_nulls().str.to_lowercase().str.strip_chars())
    names = list(known)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            print(
                f"{one} ({len(known[one]):,}) and {other} ({len(known[other]):,}): {len(known[one] & known[other]):,}"
            )


def held_out(options: argparse.Namespace) -> None:
    dataset = Dataset.open(options.dataset)
    split = split_dataset(dataset, SplitConfig(protocol=options.protocol))
    wanted = options.models.split(",")
    runs: list[tuple[str, str, float, dict[str, Any]]] = [
        (model, model, 1.0, {}) for model in ("popular", "popular-recent", "content") if model in wanted
    ]
    begin = {"training": {"pretrained": str(options.pretrained)}}
    still = {"training": {**begin["training"], "epochs": 0}}
    if "zero-shot" in wanted:
        runs.append(
            (
                "zero-shot, text only",
                "weave",
                1.0,
                {**still, "model": {"popularity": False, "request": False, "fusion": "sum"}},
            )
        )
    if "zero-shot-popularity" in wanted:
        runs.append(("zero-shot, popularity of the target", "weave", 1.0, still))
    for share in map(float, options.shares.split(",")):
        runs += [("pretrained", "weave", share, begin)] if "pretrained" in wanted else []
        runs += [("alone", "weave", share, {})] if "alone" in wanted else []
    for seed in map(int, options.seeds.split(",")):
        for label, model, share, settings in runs:
            facts = {"dataset": options.dataset.name, "protocol": options.protocol, "label": label, "share": share}
            facts |= {"seed": seed, "settings": options.settings}
            _once(options.out, facts, partial(_fitted, dataset, split, model, share, seed, settings, options))


def _fitted(
    dataset: Dataset,
    split: Split,
    model: str,
    share: float,
    seed: int,
    settings: dict[str, Any],
    options: argparse.Namespace,
) -> tuple[dict[str, Any], np.ndarray]:
    """Fit on a share of the people, or on so many of them, and ask what the whole dataset asks."""
    part = dataset if share == 1 else dataset.of_users(_people(dataset, split, share, seed))
    tables = parse_settings([f"split.protocol={options.protocol}", f"training.seed={seed}", *options.settings])
    if split.split_time is not None:
        tables["split"]["split_time"] = split.split_time
    for table, values in settings.items():
        tables.setdefault(table, {}).update(values)
    if model != "weave":
        tables = {table: tables[table] for table in ("split", "encoder") if table in tables}
    fitted = Recommender.fit(part, model, settings=tables)
    whole = Recommender(dataset, fitted.model, fitted.config, fitted.text, fitted.counts_I, fitted.run)
    ndcg_B = _judged(whole, split.test)
    cold_B = whole.counts_I[dataset.item_index[split.test.target]] == 0
    return {
        "interactions": split_dataset(part, fitted.config.split).full.num_interactions,
        "validation": fitted.run.validation_ndcg_at_10,
        "best_epoch": fitted.run.best_epoch,
        "epochs": len(fitted.run.curve),
        "seconds": fitted.run.seconds,
        "cold": ndcg_B[cold_B].mean() if cold_B.any() else None,
        "cold_cases": int(cold_B.sum()),
    }, ndcg_B


def _people(dataset: Dataset, split: Split, share: float, seed: int) -> np.ndarray:
    """Draw people with a training interaction: a share of them below 1, so many above."""
    learned_from = np.flatnonzero(split.train.end > split.train.start)
    order = np.random.default_rng(seed).permutation(learned_from)
    return order[: round(share * len(order)) if share < 1 else int(share)]


def _judged(recommender: Recommender, cases: Cases) -> np.ndarray:
    lists = recommender.rank_cases(cases, 10).item_index_BK
    return metric_values(lists, recommender.dataset.item_index[cases.target], [10])["NDCG@10"]


def _once(out: Path, facts: dict[str, Any], run: Callable[[], tuple[dict[str, Any], np.ndarray]]) -> None:
    """Run what is not there yet; the value of each case goes beside, so that runs can be paired."""
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if any(all(record.get(name) == value for name, value in facts.items()) for record in done):
        return
    began = time.monotonic()
    found, ndcg_B = run()
    record = {**facts, "test": ndcg_B.mean(), "cases": len(ndcg_B), **found}
    record |= {"versions": versions(), "hardware": hardware()}
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    record["values"] = f"{len(done):04}.npy"
    np.save(folder / record["values"], ndcg_B)
    with out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    shown = " ".join(f"{name} {facts[name]}" for name in ("dataset", "label", "share", "seed") if name in facts)
    print(f"{shown}: {record['test']:.4f} ({time.monotonic() - began:.0f} s)", flush=True)


def overlap(options: argparse.Namespace) -> None:
    dataset = Dataset.open(options.dataset)
    split_time = split_dataset(dataset, SplitConfig()).split_time
    halves = _halves(dataset, options.column, options.value, options.out.with_suffix("") / "halves")
    together = join(halves, same_people=True, out=options.out.with_suffix("") / "halves" / "both")
    named = [f"split.split_time={split_time}", *options.settings]
    for seed in map(int, options.seeds.split(",")):
        tables = parse_settings([*named, f"training.seed={seed}"])
        facts = {"dataset": options.dataset.name, "seed": seed, "settings": options.settings}
        fit_both = cache(partial(Recommender.fit, together, settings=tables))
        for name, half in halves.items():
            cases = split_dataset(half, SplitConfig(split_time=split_time)).test
            alone = partial(_alone, half, tables, cases)
            _once(options.out, {**facts, "label": f"{name}, alone"}, alone)
            both = partial(_with_both, fit_both, half, name, cases)
            _once(options.out, {**facts, "label": f"{name}, both"}, both)


def _alone(half: Dataset, tables: dict[str, Any], cases: Cases) -> tuple[dict[str, Any], np.ndarray]:
    return {}, _judged(Recommender.fit(half, settings=tables), cases)


def _with_both(
    fit_both: Callable[[], Recommender], half: Dataset, name: str, cases: Cases
) -> tuple[dict[str, Any], np.ndarray]:
    return {}, _asked_within(fit_both(), half, name, cases)


def _halves(dataset: Dataset, column: str, value: str, out: Path) -> dict[str, Dataset]:
    """Part a catalogue by whether a column has a word, with all that happened; the halves share their people."""
    has_it = pl.col(column).cast(pl.String).str.contains(value, literal=True).fill_null(value=False)
    halves = {}
    for name, items in (("with", dataset.item_table.filter(has_it)), ("without", dataset.item_table.filter(~has_it))):
        log = log_of(dataset).filter(pl.col("item_id").cast(pl.String).is_in(items["item_id"].implode()))
        halves[name] = Dataset.from_tables(
            Interactions.of(log), Entities.of(items), Entities.of(dataset.user_table), out=out / name
        )
    return halves


def _asked_within(joint: Recommender, half: Dataset, name: str, cases: Cases) -> np.ndarray:
    """Ask a joint model the cases of one half, among its items, with all that the person did anywhere before."""
    together = joint.dataset
    is_own_I = np.array([False, *(id_.startswith(f"{name}:") for id_ in together.items.ids)])
    start_B, end_B, target_B = [], [], []
    for user, target in zip(cases.user_index, cases.target, strict=True):
        where = together.history_of(half.users.id_of(int(user)))
        times = together.timestamp[where]
        start_B.append(where.start)
        end_B.append(where.start + int(np.searchsorted(times, half.timestamp[target])))
        target_B.append(together.items.index_of(f"{name}:{half.items.id_of(int(half.item_index[target]))}"))
    target_B = np.array(target_B)
    told = joint.config.split.told
    positions_B = np.array(end_B)  # the first event at the target's time: it has the time that is asked for
    histories = gather(together, np.array(start_B), np.array(end_B), joint.model.max_length, positions_B, told)
    ranker, ndcg = Ranker(joint.model), []
    for begin in range(0, len(cases), 256):
        rows = np.arange(begin, min(begin + 256, len(cases)))
        some = histories.rows(rows)
        score_BI = ranker.scores(some).numpy()
        score_BI[:, ~is_own_I] = -np.inf
        if not joint.config.include_seen:
            score_BI[some.seen()] = -np.inf
        wanted_B1 = np.take_along_axis(score_BI, target_B[rows, None], axis=1)
        rank_B = (score_BI > wanted_B1).sum(axis=1)
        ndcg.append(np.where(np.isfinite(wanted_B1[:, 0]) & (rank_B < 10), 1 / np.log2(rank_B + 2), 0.0))
    return np.concatenate(ndcg)


def pair(options: argparse.Namespace) -> None:
    """Print what is in a file of results, and the paired difference to the line before where the cases are the same."""
    records = [json.loads(line) for line in options.out.read_text().splitlines()]
    for record in records:
        shown = [
            str(record.get(name, "")) for name in ("dataset", "label", "share", "seed", "interactions", "best_epoch")
        ]
        print(*shown, f"{record['test']:.4f}", "cold", record.get("cold") and round(record["cold"], 4), sep=" | ")
    folder = options.out.with_suffix("")
    by_key = {(r["dataset"], r["label"], r.get("share"), r["seed"]): r for r in records}
    for (dataset, label, share, seed), record in by_key.items():
        rival = {
            "pretrained": "alone",
            "zero-shot, text only": "content",
            "with, both": "with, alone",
            "without, both": "without, alone",
        }.get(label)
        other = by_key.get((dataset, rival, share, seed))
        if other is not None:
            first, second = (np.load(folder / one["values"]) for one in (record, other))
            difference = asdict(paired_difference(first, second))
            print(dataset, share, seed, label, "minus", rival, {n: round(v, 4) for n, v in difference.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("titles")
    one.add_argument("datasets", type=Path, nargs="+")
    one.set_defaults(run=titles)
    one = commands.add_parser("held-out")
    one.add_argument("dataset", type=Path)
    one.add_argument("--protocol", default="temporal")
    one.add_argument("--pretrained", type=Path, required=True)
    one.add_argument("--shares", default="0.01,0.1,0.3,1", help="of the people below 1, so many of them above")
    one.add_argument(
        "--models", default="popular,popular-recent,content,zero-shot,zero-shot-popularity,pretrained,alone"
    )
    one.set_defaults(run=held_out)
    two = commands.add_parser("overlap")
    two.add_argument("dataset", type=Path)
    two.add_argument("--column", required=True)
    two.add_argument("--value", required=True)
    two.set_defaults(run=overlap)
    for command in (one, two):
        command.add_argument("--seeds", default="0")
        command.add_argument("--set", dest="settings", action="append", default=[])
        command.add_argument("--out", type=Path, required=True)
    three = commands.add_parser("pair")
    three.add_argument("out", type=Path)
    three.set_defaults(run=pair)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
