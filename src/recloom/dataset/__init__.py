"""A validated table of interactions comes in; vocabularies, splits and sequences, kept in one HDF5 file, go out."""

from recloom.dataset.assembling import assemble
from recloom.dataset.columns import CategoryColumn, ContextColumn, NumberColumn, unknown_value
from recloom.dataset.dataset import FILE_NAME, Dataset, write_report
from recloom.dataset.growing import Growth, grow, log_of, without
from recloom.dataset.joining import join
from recloom.dataset.sequences import (
    Histories,
    Interaction,
    Requests,
    context_value,
    gather,
    histories_from_interactions,
    neighbouring_pairs,
    windows,
)
from recloom.dataset.sharding import dataset_part, shard_of, shard_positions
from recloom.dataset.splits import (
    PROTOCOLS,
    SECONDS_PER_DAY,
    Cases,
    Protocol,
    Segments,
    Split,
    SplitConfig,
    Ties,
    expand_ranges,
    split_dataset,
    stretches_of,
)
from recloom.dataset.vocabulary import PADDING_INDEX, Vocabulary

__all__ = [
    "FILE_NAME",
    "PADDING_INDEX",
    "PROTOCOLS",
    "SECONDS_PER_DAY",
    "Cases",
    "CategoryColumn",
    "ContextColumn",
    "Dataset",
    "Growth",
    "Histories",
    "Interaction",
    "NumberColumn",
    "Protocol",
    "Requests",
    "Segments",
    "Split",
    "SplitConfig",
    "Ties",
    "Vocabulary",
    "assemble",
    "context_value",
    "dataset_part",
    "expand_ranges",
    "gather",
    "grow",
    "histories_from_interactions",
    "join",
    "log_of",
    "neighbouring_pairs",
    "shard_of",
    "shard_positions",
    "split_dataset",
    "stretches_of",
    "unknown_value",
    "windows",
    "without",
    "write_report",
]
