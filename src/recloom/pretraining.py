"""Several datasets -> what a model of texts learns from all of them, for catalogues that it has never seen."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recloom.config import Tables, build
from recloom.dataset import Cases, Dataset, Split, gather, join, split_dataset
from recloom.errors import ConfigError
from recloom.fitting import new_model, read_catalogue
from recloom.models import ItemText, TrainingData, Weave
from recloom.models.pretrained import check_replaceable
from recloom.run_config import RunConfig
from recloom.training import Progress, TrainingResult, hardware, train, versions

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {
        "network": "gru",
        "embedding_dim": 256,
        "hidden_dim": 256,
        "text_dim": 256,
        "max_length": 50,
        "num_negatives": 2_048,
    },
    "training": {"epochs": 20, "patience": 3, "batch_size": 1_024},
}
"""What a pretrained model is where the user does not say otherwise."""
FIXED: Mapping[str, Mapping[str, Any]] = {
    # Items by their text alone; and what is asked when, and what is popular, is another matter in each catalogue.
    "model": {"fusion": "text", "warm_start": False, "request": False, "popularity": False},
    # Logs of other years have no common time to split at.
    "split": {"protocol": "leave-one-out", "everything": True},
}
"""What makes it one that carries over."""
TEXT_ENCODER = ("name", "max_tokens", "int8")
CASES_AT_ONCE = 256
CUTOFF = 10


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What is learned from: the [pretraining] table of a run file."""

    interactions: int = 200_000
    """Most interactions of each dataset that are read, those of people chosen at random."""

    def __post_init__(self) -> None:
        if self.interactions < 2:
            raise ConfigError(f"pretraining.interactions is {self.interactions}; it has to be at least 2")


def pretrain(
    datasets: Mapping[str, Dataset],
    out: Path,
    *,
    settings: Tables | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train a `weave` that knows items by their text alone on several datasets, and keep what is about none of them.

    Each catalogue is centred on its own mean, and people choose among the items of their own catalogue. Validation asks
    for everybody's last interaction, and counts each dataset alike.

    Args:
        datasets: By name.
        out: Folder for the pretrained model.
        settings: Options by table, as in a run file: [pretraining], [model], [training] and [encoder].
        checkpoint: File to keep the state of training in, and to go on from after a kill.
        progress: Told what is going on.

    Returns:
        How training went.

    Raises:
        ConfigError: An option is unknown or fixed here, `out` holds something else, or a catalogue has no text.
        TrainingError: There is nothing to learn from.
    """
    check_replaceable(out)
    began = time.monotonic()
    own, tables = _checked(settings or {})
    seed = tables["training"].get("seed", 0)
    fewer = {name: _some_people(dataset, own.interactions, seed) for name, dataset in datasets.items()}
    joined = join({name: _bare(dataset) for name, dataset in fewer.items()})
    config = RunConfig.resolve("weave", joined, tables)
    text, config, fingerprint = _read(datasets, config, progress)
    encoded = time.monotonic()
    catalogue_I = torch.repeat_interleave(
        torch.arange(len(datasets) + 1), torch.tensor([1, *(len(dataset.items) for dataset in datasets.values())])
    )
    model = new_model(joined, config, text)
    assert isinstance(model, Weave)
    model.learn_for_others(catalogue_I)
    split = split_dataset(joined, config.split)
    data = TrainingData(joined, split.train)
    model.prepare(data)
    cases = _asked(joined, split, catalogue_I, config)
    result = train(
        model,
        data,
        config.training,
        validate=lambda: _ndcg_within(model, joined, cases, catalogue_I),
        checkpoint=checkpoint,
        key=f"{[d.fingerprint for d in datasets.values()]} {own.interactions} {config.to_toml()} {fingerprint}",
        progress=progress,
    )
    if not result.curve:
        raise KeyboardInterrupt  # nothing was learned that could be kept
    chosen = asdict(config.encoder)
    record = {
        "datasets": {
            name: {
                "fingerprint": dataset.fingerprint,
                "interactions": dataset.num_interactions,
                "interactions_read": fewer[name].num_interactions,
                "items": len(dataset.items),
            }
            for name, dataset in datasets.items()
        },
        "encoder": fingerprint,
        "training": {name: value for name, value in asdict(config.training).items() if value is not None},
        "stopped": result.stopped,
        "best_epoch": result.best_epoch,
        "validation_ndcg_at_10": result.best_validation,
        "curve": [asdict(epoch) for epoch in result.curve],
        "seconds": {"encode": round(encoded - began, 2), "train": round(time.monotonic() - encoded, 2)},
        "versions": versions(),
        "hardware": hardware(),
    }
    model.pretrained({name: chosen[name] for name in TEXT_ENCODER}, fingerprint).save(out, record)
    return result


def _checked(settings: Tables) -> tuple[PretrainingConfig, Tables]:
    """Put the user's settings over the defaults, and refuse those that would not carry over."""
    known = {"pretraining", "model", "training", "encoder"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"unknown table [{unknown[0]}]; pretraining reads {', '.join(sorted(known))}")
    for name, value in FIXED["model"].items():
        if settings.get("model", {}).get(name, value) != value:
            raise ConfigError(f"model.{name} is fixed at {value} in pretraining, so that it carries over; leave it out")
    for name in ("pretrained", "teacher"):
        if settings.get("training", {}).get(name) is not None:
            raise ConfigError(f"training.{name} is for fit; pretraining begins from nothing, so leave it out")
    if settings.get("training", {}).get("epochs", 1) == 0:
        raise ConfigError("training.epochs is 0; pretraining takes one at least")
    if settings.get("model", {}).get("network") == "bert4rec":
        raise ConfigError("model.network is 'bert4rec', which has more to carry over than this can; choose another")
    own = build(PretrainingConfig, "pretraining", settings.get("pretraining", {}), {})
    tables = {
        table: {**DEFAULTS.get(table, {}), **settings.get(table, {}), **FIXED.get(table, {})}
        for table in ("model", "training", "encoder", "split")
    }
    return own, tables


def _some_people(dataset: Dataset, most: int, seed: int) -> Dataset:
    """Return a dataset with the interactions of as many people, in random order, as have at most so many."""
    if dataset.num_interactions <= most:
        return dataset
    users = 1 + np.random.default_rng(seed).permutation(len(dataset.users))
    lengths = np.diff(dataset.user_offsets)[users]
    left, chosen = most, []
    for user, length in zip(users.tolist(), lengths.tolist(), strict=True):
        if length <= left:
            chosen.append(user)
            left -= length
    if not chosen:
        raise ConfigError(f"nobody has as few as {most:,} interactions; raise pretraining.interactions")
    return dataset.of_users(np.array(chosen))


def _bare(dataset: Dataset) -> Dataset:
    """Return a dataset without what is known of people and of the circumstances of interactions."""
    bare = dataset.of_users(np.arange(1, len(dataset.users) + 1))
    bare.context, bare.weight = {}, None
    bare.user_table = dataset.user_table.select("user_id")
    bare.item_table = dataset.item_table.select("item_id")
    return bare


def _read(
    datasets: Mapping[str, Dataset], config: RunConfig, progress: Progress | None
) -> tuple[ItemText, RunConfig, str]:
    """Read all catalogues with one encoder, each centred on its own mean; each keeps its vectors beside it."""
    config = replace(config, encoder=replace(config.encoder, image="none", vectors=False))
    parts, reads, fingerprint = list[np.ndarray](), [], ""
    for name, dataset in datasets.items():
        text, encoder, chosen, _ = read_catalogue(dataset, config, progress)
        if text is None or encoder is None:
            raise ConfigError(
                f"the catalogue of {name} has no text columns, by which items are known here; leave it out"
            )
        config, fingerprint = replace(config, encoder=chosen), encoder.fingerprint
        centred_NE = text.vectors_IE[1:].copy()
        has_text_N = np.abs(centred_NE).max(axis=1) > 0
        centred_NE[has_text_N] -= centred_NE[has_text_N].mean(axis=0)
        parts.append(centred_NE)
        reads.append(text.read)
    vectors_IE = np.concatenate([np.zeros_like(parts[0][:1]), *parts])
    return ItemText(vectors_IE, [""] * len(vectors_IE), reads[-1]), config, fingerprint


def _asked(dataset: Dataset, split: Split, catalogue_I: torch.Tensor, config: RunConfig) -> dict[int, Cases]:
    """Part what validation asks by catalogue, and leave some of it out where that is much."""
    catalogue_B = catalogue_I.numpy()[dataset.item_index[split.validation.target]]
    most = max(1, config.training.validation_cases // int(catalogue_I.max()))
    return {
        int(number): split.validation.rows(catalogue_B == number).sample(most, config.training.seed)
        for number in np.unique(catalogue_B)
    }


@torch.no_grad()
def _ndcg_within(model: Weave, dataset: Dataset, asked: Mapping[int, Cases], catalogue_I: torch.Tensor) -> float:
    """Return the mean over datasets of NDCG@10 among the items of the dataset's own catalogue."""
    scorer = model.eval().scorer()
    means = []
    for catalogue, cases in asked.items():
        ranks = []
        for begin in range(0, len(cases), CASES_AT_ONCE):
            some = cases.rows(np.arange(begin, min(begin + CASES_AT_ONCE, len(cases))))
            histories = gather(dataset, some.history_start, some.history_end, model.max_length)
            score_BI = scorer(histories).cpu()
            score_BI[:, catalogue_I != catalogue] = -torch.inf
            score_BI[*map(torch.from_numpy, histories.seen())] = -torch.inf
            target_B1 = torch.from_numpy(dataset.item_index[some.target]).long()[:, None]
            target_score_B1 = score_BI.gather(1, target_B1)
            # Equal scores go by the item's index, as in every list.
            is_before_BI = (score_BI == target_score_B1) & (torch.arange(score_BI.shape[1]) < target_B1)
            ranks.append(((score_BI > target_score_B1) | is_before_BI).sum(dim=1))
        rank_B = torch.cat(ranks)
        means.append(torch.where(rank_B < CUTOFF, 1 / torch.log2(rank_B + 2.0), 0.0).mean())
    return float(torch.stack(means).mean())
