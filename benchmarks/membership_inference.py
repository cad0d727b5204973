"""Can somebody with a model tell who it learned from? Members and others, before and after forgetting, and with noise.

    python benchmarks/membership_inference.py DATASET --out attacks.jsonl [--forget 100] [--set privacy.epsilon=8]

Several models are fitted, each on one half of the people, so that everybody is a member of half of the models. The
attacker knows a person's whole training history and sees the model's loss on it (full softmax over the catalogue, no
dropout). Three attacks, by what is taken for the sign of a member:

    loss        a low loss (Yeom et al. 2018, https://arxiv.org/abs/1709.01604)
    calibrated  a loss lower than the mean of the other models that did not learn from the person (Watson et al. 2022,
                https://arxiv.org/abs/2111.08440)
    likelihood  the likelihood ratio of the loss under the other models with and without the person, normal with one
                variance for all (LiRA: Carlini et al. 2022, https://arxiv.org/abs/2112.03570)

Each model is attacked with all others as references. Intervals: 95 %, bootstrap over people.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from recloom import Dataset, Recommender
from recloom.config import parse_settings
from recloom.dataset import SplitConfig, gather, split_dataset, windows, without
from recloom.lifecycle.forgetting import forget
from recloom.models.negatives import Negatives

SPLIT = {"protocol": "leave-one-out"}


@torch.no_grad()
def losses(recommender: Recommender, dataset: Dataset) -> np.ndarray:
    """Return the mean loss of each person of a dataset on what they would have been learned from, shape (users,)."""
    model, length = recommender.model.eval(), recommender.model.max_length
    model._negatives = Negatives((torch.arange(model.num_items + 1) > 0).long(), "uniform", 0)
    train = split_dataset(dataset, SplitConfig(**SPLIT)).train
    start_W, end_W = windows(train, length)
    user_W = np.searchsorted(dataset.user_offsets, start_W, side="right") - 1
    values = np.full(len(dataset.users), np.nan)
    for user in range(1, len(values) + 1):
        mine = user_W == user
        if mine.any():
            torch.manual_seed(0)  # how much of a request is told is drawn in the loss
            values[user - 1] = float(model.loss(gather(dataset, start_W[mine], end_W[mine], length + 1)))
    return values


def halves(num_users: int, num_models: int) -> np.ndarray:
    """Return who is a member of which model, everybody of half of them; shape (models, users)."""
    rng = np.random.default_rng(0)
    is_member = np.arange(num_models)[:, None] < num_models // 2
    return np.stack([rng.permutation(is_member[:, 0]) for _ in range(num_users)], axis=1)


def scores(loss_MU: np.ndarray, is_in_MU: np.ndarray, target: int) -> dict[str, np.ndarray]:
    """Return each attack's belief that each person is a member of one model."""
    others = np.arange(len(loss_MU)) != target
    known, member = loss_MU[others], is_in_MU[others]
    mean_in, mean_out = (np.nanmean(np.where(side, known, np.nan), axis=0) for side in (member, ~member))
    variance = np.nanvar(known - np.where(member, mean_in, mean_out))
    loss = loss_MU[target]
    return {
        "loss": -loss,
        "calibrated": mean_out - loss,
        "likelihood": ((loss - mean_out) ** 2 - (loss - mean_in) ** 2) / (2 * variance),
    }


def auc(member: np.ndarray, other: np.ndarray) -> float:
    order = np.concatenate([member, other]).argsort(kind="stable").argsort() + 1
    return float((order[: len(member)].sum() - len(member) * (len(member) + 1) / 2) / (len(member) * len(other)))


def caught(member: np.ndarray, other: np.ndarray, share: float = 0.01) -> float:
    """Return the share of members that are found where one in a hundred of the others is wrongly accused."""
    return float((member > np.quantile(other, 1 - share)).mean())


def judged(belief: np.ndarray, is_in: np.ndarray, draws: int = 1_000) -> dict[str, list[float]]:
    """Return AUC and the members caught at 1 %, each with an interval.

    Args:
        belief: One row a model, one column a person; NaN leaves a pair out.
        is_in: Whether the person is a member of the model.
        draws: Bootstrap samples of people.
    """
    rng, num_users = np.random.default_rng(0), belief.shape[1]
    measures: dict[str, list[float]] = {}
    for name, measure in (("auc", auc), ("caught at 1 %", caught)):

        def of(users: np.ndarray, measure=measure) -> float:
            some, inside = belief[:, users], is_in[:, users]
            usable = np.isfinite(some)
            return measure(some[usable & inside], some[usable & ~inside])

        drawn = [of(rng.integers(num_users, size=num_users)) for _ in range(draws)]
        measures[name] = [of(np.arange(num_users)), *np.quantile(drawn, [0.025, 0.975]).tolist()]
    return measures


def fit(dataset: Dataset, settings: list[str], seed: int) -> Recommender:
    tables = parse_settings([*settings, "training.refit=false"])
    tables.setdefault("training", {})["seed"] = seed
    return Recommender.fit(dataset, settings={**tables, "split": SPLIT})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--forget", type=int, default=0, help="members of each of the first two models to forget")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    dataset, began = Dataset.open(options.dataset), time.process_time()
    is_in_MU = halves(len(dataset.users), options.models)
    loss_MU = []
    for model in range(options.models):
        chosen = dataset.of_users(np.flatnonzero(is_in_MU[model]) + 1)
        loss_MU.append(losses(fit(chosen, options.settings, model), dataset))
        gap = loss_MU[-1][~is_in_MU[model]].mean() - loss_MU[-1][is_in_MU[model]].mean()
        print(f"model {model}: loss gap {gap:.3f}, {time.process_time() - began:.0f} s of CPU", flush=True)
    loss_MU = np.stack(loss_MU)
    beliefs = [scores(loss_MU, is_in_MU, target) for target in range(options.models)]
    record = {
        "settings": options.settings,
        "models": options.models,
        "attacks": {name: judged(np.stack([b[name] for b in beliefs]), is_in_MU) for name in beliefs[0]},
        "loss of members": float(loss_MU[is_in_MU].mean()),
        "loss of others": float(loss_MU[~is_in_MU].mean()),
    }
    if options.forget:
        record["forgetting"] = forgetting(dataset, options, loss_MU, is_in_MU)
    record["cpu_seconds"] = time.process_time() - began
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record, indent=1))


def forgetting(dataset: Dataset, options: argparse.Namespace, loss_MU: np.ndarray, is_in_MU: np.ndarray) -> dict:
    """Attack the same people before and after `recloom forget` against those who were never members."""
    beliefs: dict[str, dict[str, list[np.ndarray]]] = {"before": {}, "after": {}}
    is_gone = []
    for target in range(2):
        ids = np.array(dataset.users.ids)
        gone = np.random.default_rng(target).choice(np.flatnonzero(is_in_MU[target]), options.forget, replace=False)
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "model"
            fit(without(dataset, users=ids[~is_in_MU[target]].tolist()), options.settings, target).save(saved)
            stages = {"before": losses(Recommender.load(saved).over(dataset), dataset)}
            forget(saved, ids[gone].tolist())
            stages["after"] = losses(Recommender.load(saved).over(dataset), dataset)
        never = ~is_in_MU[target]
        asked = never.copy()
        asked[gone] = True
        is_gone.append(np.isin(np.arange(len(ids)), gone))
        for stage, loss in stages.items():
            replaced = loss_MU.copy()
            replaced[target] = np.where(asked, loss, np.nan)
            for name, belief in scores(replaced, is_in_MU, target).items():
                beliefs[stage].setdefault(name, []).append(belief)
    return {
        stage: {name: judged(np.stack(belief), np.stack(is_gone)) for name, belief in of_stage.items()}
        for stage, of_stage in beliefs.items()
    }


if __name__ == "__main__":
    main()
