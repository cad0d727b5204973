"""People dealt over shards -> a model that holds one member a shard, each trained where nobody else ever was.

A member is fitted as any model is, on a dataset that holds the people of its shard and the catalogue: how long to
train, how much popularity counts, what is taken together, even how many words a table has rows for, is read off them
alone. Only then is it put over the whole dataset, for serving.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from recloom.dataset import Dataset, Growth, Segments, Split, dataset_part, shard_positions, split_dataset, windows
from recloom.errors import TrainingError
from recloom.fitting import carried_moments, fit_model, indices_in, learn_further, new_model
from recloom.models import ItemText, Model, Sharded, TrainedModel, TrainingData
from recloom.models.circumstances import MOST_CONTEXT_VALUES
from recloom.run_config import RunConfig
from recloom.training import PrivacyConfig, Progress, remove_checkpoint


@dataclass(frozen=True)
class ShardRecord:
    """How the member of one shard came about, for `metrics.json`."""

    people: int
    interactions: int
    best_epoch: int | None = None
    """None where it has learned nothing, or has been updated since."""
    validation_ndcg_at_10: float | None = None
    """Of this member alone, asked about its own people."""
    validation_cases: int | None = None
    """How many of them there were to choose by."""
    seconds: float = 0.0


@dataclass(frozen=True)
class ShardedResult:
    """A model of shards, what its optimisers remember, and how each member came about."""

    model: Sharded
    moments: dict[str, torch.Tensor]
    records: list[ShardRecord]

    def moments_of(self, number: int) -> dict[str, torch.Tensor]:
        """Return what the optimiser of one member remembers, by the member's own names."""
        prefix = f"shards.{number}."
        return {n.removeprefix(prefix): values for n, values in self.moments.items() if n.startswith(prefix)}

    def keep(self, number: int, before: "ShardedResult") -> None:
        """Take a member as it was, over the same dataset."""
        self.model.members[number].load_state_dict(before.model.members[number].state_dict())
        self._remember(number, before.moments_of(number))
        self.records[number] = before.records[number]

    def put(
        self, number: int, member: Model, own: Dataset, dataset: Dataset, moments: Mapping[str, torch.Tensor]
    ) -> None:
        """Put what was learned on the dataset of a shard over the whole one."""
        over_all, source_I = self.model.members[number], indices_in(own.items, dataset.items)
        over_all.take_over(member, source_I)
        self._remember(number, carried_moments(over_all, member, source_I, moments))

    def apart(self, number: int, shard: "Shard", dataset: Dataset) -> tuple[TrainedModel, dict[str, torch.Tensor]]:
        """Return a member, and what its optimiser remembers, on the dataset of its shard alone: to learn on there."""
        over_all, source_I = self.model.members[number], indices_in(dataset.items, shard.dataset.items)
        member = new_model(shard.dataset, shard.config, shard.text)
        assert isinstance(member, TrainedModel)
        member.take_over(over_all, source_I)
        return member, carried_moments(member, over_all, source_I, self.moments_of(number))

    def _remember(self, number: int, moments: Mapping[str, torch.Tensor]) -> None:
        self.moments.update({f"shards.{number}.{name}": values for name, values in moments.items()})


@dataclass(frozen=True)
class Shard:
    """What one member learns from."""

    dataset: Dataset
    split: Split
    config: RunConfig
    text: ItemText | None

    @classmethod
    def of(cls, dataset: Dataset, positions: np.ndarray, config: RunConfig, text: ItemText | None) -> "Shard | None":
        """Return a shard as a dataset of its own, all of which may be learned; None where nobody has a pair."""
        if len(positions) == 0:
            return None
        own = dataset_part(dataset, positions, MOST_CONTEXT_VALUES)
        # What the whole split holds out is not there any more, so when validation begins is the shard's own affair.
        config = replace(
            config,
            split=replace(config.split, everything=True, split_time=None, test_until=None),
            training=replace(config.training, budget=_share(config.training.budget, config.privacy.shards)),
            privacy=PrivacyConfig(),
        )
        split = split_dataset(own, config.split)
        if not _has_pairs(split.full):
            return None
        if not _has_pairs(split.train):
            split = replace(split, validation=split.validation.sample(0, seed=0))
        if text is not None:
            rows = np.array([0, *dataset.items.indices_of(own.items.ids)])
            text = text.of_rows(rows, [text.titles[row] for row in rows])
        return cls(own, split, config, text)


def _share(budget: float | None, num_shards: int) -> float | None:
    return None if budget is None else budget / num_shards


def _has_pairs(segments: Segments) -> bool:
    return len(windows(segments, length=1)[0]) > 0


def fit_shards(
    dataset: Dataset,
    split: Split,
    config: RunConfig,
    text: ItemText | None,
    *,
    before: ShardedResult | None = None,
    again: Collection[int] = (),
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> ShardedResult:
    """Fit the member of each shard from nothing.

    Args:
        dataset: Everybody.
        split: What may be learned from.
        config: The run; `privacy.shards` says how many there are.
        text: What the encoder made of the catalogue.
        before: What there is already, over the same dataset. None: nothing.
        again: Which of its members to fit again; the others stay bit by bit what they are.
        checkpoint: Beside this file each member keeps its own until all are there.
        progress: Told which shard is at hand, and what goes on there.

    Raises:
        TrainingError: Nobody has two interactions.
    """
    result = nothing_learned(dataset, config, text)
    mine = shard_positions(dataset, split.full.end, config.privacy.shards)
    kept_beside = [checkpoint and checkpoint.with_name(f"{checkpoint.name}.{number}") for number in range(len(mine))]
    for number, positions in enumerate(mine):
        if before is not None and number not in again:
            result.keep(number, before)
        elif (shard := Shard.of(dataset, positions, config, text)) is not None:
            _fit_member(result, number, shard, dataset, kept_beside[number], _named(progress, number, len(mine)))
    if all(is_blank(member) for member in result.model.members):
        raise TrainingError(
            "no user has two interactions to learn from; a sequence model needs at least one pair, popular needs none"
        )
    for path in kept_beside:
        if path is not None:
            remove_checkpoint(path)
    return result


def learn_shards_further(
    before: ShardedResult, growth: Growth, config: RunConfig, text: ItemText | None, progress: Progress | None
) -> ShardedResult:
    """Let each member learn what its own people have done since; those of whom there is nothing new stay as they are.

    Args:
        before: Over the grown dataset, nothing new being learned.
        growth: The dataset, and what of it is new.
        config: The run, with a split that holds nothing out.
        text: What the encoder made of the catalogue.
        progress: Told which shard is at hand, and what goes on there.
    """
    dataset = growth.dataset
    result = nothing_learned(dataset, config, text)
    mine = shard_positions(dataset, split_dataset(dataset, config.split).full.end, config.privacy.shards)
    for number, positions in enumerate(mine):
        is_new_N = growth.is_new_N[positions]
        shard = Shard.of(dataset, positions, config, text) if is_new_N.any() else None
        told = _named(progress, number, len(mine))
        if shard is None:
            result.keep(number, before)
        elif is_blank(before.model.members[number]):
            _fit_member(result, number, shard, dataset, None, told)
        else:
            member, moments = before.apart(number, shard, dataset)
            data = TrainingData(shard.dataset, shard.split.full)
            own_growth = Growth(shard.dataset, is_new_N, num_known=0, notes=[])
            moments = learn_further(member, data, own_growth, shard.config, moments, told)
            result.put(number, member, shard.dataset, dataset, moments)
            result.records[number] = ShardRecord(len(shard.dataset.users), len(positions))
    return result


def is_blank(member: Model) -> bool:
    """Whether a member has learned nothing, there being nobody in its shard."""
    return not any(bool(parameter.any()) for parameter in member.parameters())


def nothing_learned(dataset: Dataset, config: RunConfig, text: ItemText | None) -> ShardedResult:
    """Return a model of shards whose members know nothing yet."""
    model = new_model(dataset, config, text)
    assert isinstance(model, Sharded)
    return ShardedResult(model, {}, [ShardRecord(0, 0) for _ in model.members])


def _fit_member(
    result: ShardedResult,
    number: int,
    shard: Shard,
    dataset: Dataset,
    checkpoint: Path | None,
    progress: Progress | None,
) -> None:
    began = monotonic()
    of_training, member, _ = fit_model(
        shard.dataset, shard.split, shard.config, shard.text, checkpoint=checkpoint, progress=progress
    )
    assert of_training is not None
    if of_training.stopped == "interrupted":
        raise KeyboardInterrupt  # some of the shards are no model
    result.put(number, member, shard.dataset, dataset, of_training.moments)
    result.records[number] = ShardRecord(
        people=len(shard.dataset.users),
        interactions=shard.dataset.num_interactions,
        best_epoch=of_training.best_epoch,
        validation_ndcg_at_10=of_training.best_validation,
        validation_cases=len(shard.split.validation),
        seconds=round(monotonic() - began, 2),
    )


def _named(progress: Progress | None, number: int, num_shards: int) -> Progress | None:
    """Say with everything that goes on in which shard it does."""
    if progress is None:
        return None
    tell = progress
    return lambda what, done, total: tell(f"shard {number + 1} of {num_shards}, {what}", done, total)
