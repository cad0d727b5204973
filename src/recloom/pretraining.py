"""Several datasets -> what a model of texts learns from all of them, for catalogues that it has never seen."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recloom.config import Tables, build
from recloom.dataset import Cases, Dataset, Segments, gather, join, split_dataset
from recloom.errors import ConfigError
from recloom.fitting import new_model, read_catalogue
from recloom.models import ItemText, TrainingData, Weave
from recloom.models.pretrained import check_replaceable
from recloom.models.ranking import ndcg_at_10
from recloom.run_config import RunConfig
from recloom.training import (
    Progress,
    TrainingConfig,
    TrainingResult,
    hardware,
    remove_checkpoint,
    told_where,
    train,
    versions,
)

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {
        "network": "gru",
        "embedding_dim": 256,
        "hidden_dim": 256,
        "text_dim": 256,
        "max_length": 50,
        "half_life": 1.5,
        "temperature": 0.05,
        "num_negatives": 2_048,
    },
    "training": {"epochs": 6, "patience": 3, "batch_size": 1_024},
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
SHARES = (0.0, 0.5, 1.0)
"""How much of what the network makes of a history may be carried over."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What is learned from: the [pretraining] table of a run file."""

    interactions: int = 200_000
    """Most interactions of each dataset that are read, those of people chosen at random."""

    def __post_init__(self) -> None:
        if self.interactions < 2:
            raise ConfigError(f"pretraining.interactions is {self.interactions}; it has to be at least 2")


@dataclass(frozen=True)
class LeftOut:
    """What a model that learned from the other datasets is worth on one that it has never seen."""

    best_epoch: int
    """0: before it learned anything."""
    ndcg_at_10: dict[float, float]
    """For each share of what the network makes of a history."""


@dataclass(frozen=True)
class Pretraining:
    """How pretraining went."""

    result: TrainingResult
    """Of training on all datasets; validation is the mean over those left out where there are several."""
    left_out: dict[str, LeftOut]
    """By dataset; empty where there is one alone."""
    network_share: float


def pretrain(
    datasets: Mapping[str, Dataset],
    out: Path,
    *,
    settings: Tables | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Pretraining:
    """Train a `weave` that knows items by their text alone on several datasets, and keep what is about none of them.

    Each catalogue is evened out by itself, and people choose among the items of their own catalogue. What is wanted is
    what holds elsewhere. So each dataset in turn is left out of training, and its people are asked for their last
    interaction: that decides how many epochs there are, and how much of what the network makes of a history is carried
    over, which may be nothing. Then all of them are learned from. One dataset alone is asked about itself.

    Ctrl-C while one is left out leaves what is needed to go on; later, what was learned so far is kept.

    Args:
        datasets: By name.
        out: Folder for the pretrained model.
        settings: Options by table, as in a run file: [pretraining], [model], [training] and [encoder].
        checkpoint: File to keep the state of training in, with others beside it, and to go on from after a kill.
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
    key = f"{[d.fingerprint for d in datasets.values()]} {own.interactions} {config.to_toml()} {fingerprint}"
    trials = _LeaveOneOut(joined, catalogue_I, config, text, key, checkpoint, progress)
    training, left_out, share = config.training, dict[str, LeftOut](), 1.0
    askable = trials.askable()
    if len(askable) > 1:
        if training.budget:
            training = replace(training, budget=training.budget / (len(askable) + 1))
        names = ["", *datasets]
        left_out = {names[number]: trials.leave_out(number, names[number], training) for number in askable}
        share = max(SHARES, key=lambda share: np.mean([tried.ndcg_at_10[share] for tried in left_out.values()]))
        training = replace(training, epochs=round(np.mean([tried.best_epoch for tried in left_out.values()])))
    model, result = trials.learn(training, asked=askable[0] if len(askable) == 1 else None)
    model.scale_network(share)
    if left_out:
        result = replace(result, best_validation=float(np.mean([one.ndcg_at_10[share] for one in left_out.values()])))
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
        "network_share": share,
        "left_out": {name: asdict(tried) for name, tried in left_out.items()},
        "curve": [asdict(epoch) for epoch in result.curve],
        "seconds": {"encode": round(encoded - began, 2), "train": round(time.monotonic() - encoded, 2)},
        "versions": versions(),
        "hardware": hardware(),
    }
    model.pretrained({name: chosen[name] for name in TEXT_ENCODER}, fingerprint).save(out, record)
    if checkpoint:
        for path in checkpoint.parent.glob(f"{checkpoint.name}*"):  # of earlier runs with more datasets too
            remove_checkpoint(path)
    return Pretraining(result, left_out, share)


class _LeaveOneOut:
    """Several joined datasets, and models that learn from all of them or from all but one."""

    def __init__(
        self,
        joined: Dataset,
        catalogue_I: torch.Tensor,
        config: RunConfig,
        text: ItemText,
        key: str,
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> None:
        self.joined, self.catalogue_I, self.config, self.text = joined, catalogue_I, config, text
        self.key, self.checkpoint, self.progress = key, checkpoint, progress
        self.split = split_dataset(joined, config.split)
        first_U = joined.item_index[joined.user_offsets[:-1].clip(max=joined.num_interactions - 1)]
        self.catalogue_U = catalogue_I.numpy()[first_U]

    def learn(
        self, training: TrainingConfig, *, asked: int | None, without: int = 0, name: str = ""
    ) -> tuple[Weave, TrainingResult]:
        """Train a model from nothing.

        Args:
            training: How.
            asked: Catalogue whose people say which epoch was best. None: it is the last.
            without: Catalogue that is not learned from; 0 for none.
            name: Of that.

        Raises:
            KeyboardInterrupt: Training was interrupted before there was anything to keep.
        """
        model = new_model(self.joined, self.config, self.text)
        assert isinstance(model, Weave)
        model.learn_for_others(self.catalogue_I)
        is_learned_U = self.catalogue_U != without
        # Only who is asked about what was learned from has something to keep for that.
        segments = self.split.train if asked and not without else self.split.full
        start, end = segments.start, segments.end
        data = TrainingData(self.joined, Segments(start, np.where(is_learned_U, end, start)))
        model.prepare(data)
        if training.epochs == 0:
            return model, TrainingResult([], 0, None, "epochs", {})
        path = self.checkpoint and self.checkpoint.with_name(f"{self.checkpoint.name}{without or ''}")
        # How much of the network is to be carried over is decided where it was never seen, else all of it is.
        shares = SHARES if without else (1.0,)
        validate = None if asked is None else lambda: max(self.ndcg(model, asked, shares).values())
        result = train(
            model,
            data,
            training,
            validate=validate,
            judge_beginning=without > 0,
            checkpoint=path,
            key=f"{self.key} without {without} for {training.epochs}",
            progress=told_where(self.progress, f"without {name}") if name else self.progress,
        )
        if not result.curve or (without and result.stopped == "interrupted"):
            raise KeyboardInterrupt  # nothing was learned that could be kept
        return model, result

    def leave_out(self, number: int, name: str, training: TrainingConfig) -> LeftOut:
        """Learn from all datasets but one, and ask that."""
        model, result = self.learn(training, asked=number, without=number, name=name)
        return LeftOut(result.best_epoch, self.ndcg(model, number))

    def askable(self) -> list[int]:
        """Return the catalogues of which somebody's last interaction can be asked for."""
        numbers = np.unique(self._asked_of())
        return [int(number) for number in numbers]

    @torch.no_grad()
    def ndcg(self, model: Weave, catalogue: int, shares: Sequence[float] = SHARES) -> dict[float, float]:
        """Return NDCG@10 among the items of one catalogue, for each share of what the network makes of a history."""
        training = self.config.training
        cases = self.split.validation.rows(self._asked_of() == catalogue)
        cases = cases.sample(training.validation_cases, training.seed)
        parts = [parameter for name, parameter in model.named_parameters() if ".from_network." in name]
        whole = [part.clone() for part in parts]
        found = {}
        for share in shares:
            model.scale_network(share)
            found[share] = _ndcg_within(model, self.joined, cases, self.catalogue_I == catalogue)
            for part, values in zip(parts, whole, strict=True):
                part.copy_(values)
        return found

    def _asked_of(self) -> np.ndarray:
        catalogue_I: np.ndarray = self.catalogue_I.numpy()
        return catalogue_I[self.joined.item_index[self.split.validation.target]]


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


@torch.no_grad()
def _ndcg_within(model: Weave, dataset: Dataset, cases: Cases, is_there_I: torch.Tensor) -> float:
    """Return NDCG@10 of lists that hold some items alone."""
    scorer = model.eval().scorer()
    parts = []
    for begin in range(0, len(cases), CASES_AT_ONCE):
        some = cases.rows(np.arange(begin, min(begin + CASES_AT_ONCE, len(cases))))
        histories = gather(dataset, some.history_start, some.history_end, model.max_length)
        score_BI = scorer(histories).cpu()
        score_BI[:, ~is_there_I] = -torch.inf
        score_BI[*map(torch.from_numpy, histories.seen())] = -torch.inf
        parts.append(ndcg_at_10(score_BI, torch.from_numpy(dataset.item_index[some.target]).long()))
    return float(torch.cat(parts).mean())
