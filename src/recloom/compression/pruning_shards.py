"""A model of shards -> the same with members of fewer dimensions and units, each made from what its own people did."""

from dataclasses import replace

from recloom.compression.pruning import prune
from recloom.compression.teaching import fine_tune
from recloom.dataset import shard_positions, split_dataset
from recloom.errors import ConfigError
from recloom.models import Sharded, TrainingData
from recloom.recommender import Recommender
from recloom.sharded_fitting import Shard, ShardedResult, is_blank, nothing_learned
from recloom.training import Progress


def prune_shards(recommender: Recommender, progress: Progress | None) -> Recommender:
    """Prune each member and fine-tune it, on the dataset of its shard and with itself as the teacher.

    So what one member has learned gets into no other. A member that has learned nothing stays so.

    Raises:
        ConfigError: The model mixes id and text in a way that cannot be turned.
    """
    dataset, config, records = recommender.dataset, recommender.config, recommender.run.shards
    assert isinstance(recommender.model, Sharded)
    before = ShardedResult(recommender.model, {}, [])
    ends = split_dataset(dataset, config.split).full.end
    smaller: list[tuple[int, Shard, Recommender]] = []
    for number, positions in enumerate(shard_positions(dataset, ends, config.privacy.shards)):
        shard = Shard.of(dataset, positions, config, recommender.text)
        if shard is None or is_blank(before.model.members[number]):
            continue
        member, _ = before.apart(number, shard, dataset)
        counts_I = TrainingData(shard.dataset, shard.split.full).item_counts()
        run = replace(recommender.run, best_epoch=records[number]["best_epoch"])
        alone = Recommender(shard.dataset, member, shard.config, shard.text, counts_I, run)
        smaller.append((number, shard, fine_tune(alone, prune(alone), progress)))
    if not smaller:
        raise ConfigError("no shard has learned anything, so there is nothing to prune")
    config = replace(config, model=smaller[0][2].config.model)
    after = nothing_learned(dataset, config, recommender.text)
    for number, shard, alone in smaller:
        after.put(number, alone.model, shard.dataset, dataset, {})
    return Recommender(dataset, after.model, config, recommender.text, recommender.counts_I, recommender.run)
