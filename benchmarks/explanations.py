"""Are the reasons true of the model? Deletion and insertion curves, integrated gradients beside removal, and the time.

    python benchmarks/explanations.py MODEL --users 500 --counts 1,2,3,5,10 --gradients 50

For the first recommendation to each person of the test split, the interactions of the history are put in order: by
what the score loses when each is removed (`removal`, what `recloom explain` tells), the same among the newest --newest
only, as for a list (`tried`), by the cosine of item vectors (`like`), newest first (`newest`), and at random (the mean
of DRAWS orders). Deletion: how much lower the score is after the first k of an order are gone, all together. Insertion:
the score when nothing but the first k is left. Intervals are bootstrap intervals over people, of the paired
difference to random. Integrated gradients (captum) go from an event's vector to zero.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from recloom import Recommender
from recloom.dataset import Histories, gather, split_dataset
from recloom.evaluation.significance import bootstrap_intervals
from recloom.explanation import Explainer, variants
from recloom.explanation.reasoner import MOST_TRIED
from recloom.models.circumstances import events_of
from recloom.models.weave import Weave

DRAWS = 5


def orders_of(
    explainer: Explainer, history: Histories, row: int, num_tried: int, rng: np.random.Generator
) -> dict[str, list]:
    """Return the steps of a history in the order that each way to explain gives them; `random` is several orders."""
    length, read = int(history.length_B[0]), explainer.model.max_length
    facts = explainer.explain(history, [row], read)[0]
    steps = np.arange(length - 1, length - 1 - len(facts.history), -1)
    lost = np.array([removed.contribution for removed in facts.history])
    vectors = functional.normalize(
        explainer.model.similarity_vectors(torch.tensor([row, *(r.item_index for r in facts.history)])), dim=1
    )
    alike = (vectors[1:] @ vectors[0]).detach().numpy()
    return {
        "removal": [steps[np.argsort(-lost, kind="stable")]],
        "tried": [steps[:num_tried][np.argsort(-lost[:num_tried], kind="stable")]],
        "like": [steps[np.argsort(-alike, kind="stable")]],
        "newest": [steps],
        "random": [rng.permutation(steps) for _ in range(DRAWS)],
    }


def curves(
    explainer: Explainer, history: Histories, row: int, orders: dict[str, list], counts: list[int]
) -> dict[str, np.ndarray]:
    """Return for each order what deletion takes from the score and what insertion gives, shape (2, counts)."""
    length = int(history.length_B[0])
    kept, places = [np.ones(length, dtype=bool)], {}
    for name, several in orders.items():
        for order in several:
            for count in counts:
                deleted, inserted = np.ones(length, dtype=bool), np.zeros(length, dtype=bool)
                deleted[order[:count]], inserted[order[:count]] = False, True
                places.setdefault(name, []).append(len(kept))
                kept += [deleted, inserted]
    asked = variants(history, np.array(kept), explainer.model.max_length)
    score_V = explainer.scores(asked, torch.tensor([row]))[:, 0].numpy()
    found = {}
    for name, rows in places.items():
        at = np.array(rows).reshape(-1, len(counts))
        found[name] = np.stack([score_V[0] - score_V[at].mean(axis=0), score_V[at + 1].mean(axis=0)])
    return found


def gradients(model: Weave, history: Histories, row: int) -> np.ndarray:
    """Return what captum's integrated gradients give each step that the model reads, oldest first."""
    from captum.attr import IntegratedGradients

    tower = model._towers[0]
    whole = variants(history, np.ones((1, int(history.length_B[0])), dtype=bool), model.max_length)
    usual = tower._events
    with torch.no_grad():
        event_BLD, is_event_BL, timestamp_BL = usual(whole, events_of(whole))
        item_D = model.similarity_vectors(torch.tensor([row]))[0]

    def score(event_BLD: torch.Tensor) -> torch.Tensor:
        def given(*_: object) -> tuple:
            size = len(event_BLD)
            return event_BLD, is_event_BL.expand(size, -1), timestamp_BL.expand(size, -1)

        tower._events = given
        try:
            return tower.queries(whole.rows(np.zeros(len(event_BLD), dtype=int))) @ item_D
        finally:
            tower._events = usual

    given_BLD = IntegratedGradients(score).attribute(event_BLD, n_steps=32, internal_batch_size=32)
    return given_BLD.sum(dim=2)[0].detach().numpy()


def seconds_of(recommender: Recommender, users: list[str]) -> dict[str, float]:
    """Return the processor's milliseconds for a list of ten, without reasons and with them, medians over people."""
    plain, explained = [], []
    for user in users:
        began = time.process_time()
        recommender.recommend(user)
        middle = time.process_time()
        recommender.recommend(user, explain=True)
        plain.append(middle - began)
        explained.append(time.process_time() - middle)
    extra = np.array(explained) - np.array(plain)
    return {
        "plain_ms": round(1e3 * float(np.median(plain)), 1),
        "explained_ms": round(1e3 * float(np.median(explained)), 1),
        "extra_ms": round(1e3 * float(np.median(extra)), 1),
        "extra_ms_p95": round(1e3 * float(np.quantile(extra, 0.95)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--counts", default="1,2,3,5,10")
    parser.add_argument("--newest", type=int, default=MOST_TRIED)
    parser.add_argument("--gradients", type=int, default=0)
    parser.add_argument("--timed", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts = [int(part) for part in arguments.counts.split(",")]
    recommender = Recommender.load(arguments.model)
    explainer, rng = recommender._reasoner.explainer, np.random.default_rng(arguments.seed)
    read = explainer.model.max_length
    cases = split_dataset(recommender.dataset, recommender.config.split).test
    # Whoever has as many interactions as are deleted, and two more, so that something is left.
    long_enough = np.flatnonzero(cases.history_end - cases.history_start >= max(counts) + 2)
    chosen = rng.permutation(long_enough)[: arguments.users]
    found: list[dict[str, np.ndarray]] = []
    agreement = []
    for place, case in enumerate(chosen):
        start, end = cases.history_start[[case]], cases.history_end[[case]]
        history = gather(recommender.dataset, start, end, read + 1)
        short = gather(recommender.dataset, start, end, read)
        row = int(recommender.rank(short, 1).item_index_BK[0, 0])
        orders = orders_of(explainer, history, row, arguments.newest, rng)
        found.append(curves(explainer, history, row, orders, counts))
        if place < arguments.gradients and isinstance(explainer.model, Weave):
            by_gradient = gradients(explainer.model, history, row)
            facts = explainer.explain(history, [row], read)[0]
            by_removal = np.array([removed.contribution for removed in facts.history])[::-1]
            agreement.append(_rank_correlation(by_gradient, by_removal))
    print(json.dumps({"model": str(arguments.model), "people": len(found), "of": len(long_enough), "counts": counts}))
    for kind, name in enumerate(("deletion", "insertion")):
        random = np.stack([one["random"][kind] for one in found])
        print(json.dumps({"curve": name, "order": "random", "mean": random.mean(axis=0).round(4).tolist()}))
        for order in ("removal", "tried", "like", "newest"):
            values = np.stack([one[order][kind] for one in found])
            low, high = bootstrap_intervals(values - random)
            print(json.dumps({
                "curve": name, "order": order, "mean": values.mean(axis=0).round(4).tolist(),
                "difference": (values - random).mean(axis=0).round(4).tolist(),
                "low": low.round(4).tolist(), "high": high.round(4).tolist(),
                "people_better_than_random": (values > random).mean(axis=0).round(3).tolist(),
            }))  # fmt: skip
    if agreement:
        low, high = bootstrap_intervals(np.array(agreement)[:, None])
        print(json.dumps({
            "integrated_gradients_and_removal": round(float(np.mean(agreement)), 3),
            "low": round(float(low[0]), 3), "high": round(float(high[0]), 3), "people": len(agreement),
        }))  # fmt: skip
    users = [recommender.dataset.users.id_of(int(cases.user_index[case])) for case in chosen[: arguments.timed]]
    print(json.dumps({"timed": len(users), **seconds_of(recommender, users)}))


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
