"""Everything that decides a fit beside the data, and the rules that fill in what the user left open."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recloom.config import Tables, build, suggestion, to_table
from recloom.dataset import Dataset, SplitConfig, split_dataset
from recloom.errors import ConfigError
from recloom.models import MODELS
from recloom.training import TrainingConfig, UpdateConfig, usual_batch_size

REPEATS_MATTER = 0.2
"""Where more than this share of interactions is with an item the user had before, seen items stay in the lists."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which language model reads the item text, and how: the [encoder] table of a run file."""

    name: str = "auto"
    """`minilm`, `multilingual`, `hashing`, `openai:MODEL`, a folder, a hub name; `auto` looks at the script of the
    text; `none` uses no text."""
    template: str | None = None
    """Text of an item, with catalogue columns in braces: "{title} by {brand}". Unset: all text columns."""
    max_tokens: int = 128
    """Longest text that is read, in the model's tokens; the rest is cut off."""
    int8: bool = False
    """Read with 8-bit weights in ONNX Runtime: faster, vectors a little different."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a fit beside the data."""

    model_name: str
    model: Any
    """The model's own config class."""
    split: SplitConfig
    training: TrainingConfig
    update: UpdateConfig
    encoder: EncoderConfig
    include_seen: bool
    """Whether items of the history may be recommended again: measured on the data unless the caller says."""

    @classmethod
    def resolve(cls, model: str, dataset: Dataset, settings: Tables) -> "RunConfig":
        """Fill in what the user left open, by rules that look at the data.

        Raises:
            ConfigError: Unknown model, table or option; a value out of range. The message suggests the nearest.
        """
        tables = {"model", "split", "training", "update", "encoder", "recommend"}
        for table in settings:
            if table not in tables:
                raise ConfigError(f"unknown table [{table}] in the run's settings; {suggestion(table, sorted(tables))}")
        if model not in MODELS:
            raise ConfigError(f"unknown model {model!r}; {suggestion(model, list(MODELS))}")

        def config_of(config_class: type[Any], name: str, defaults: Mapping[str, Any] | None = None) -> Any:
            return build(config_class, name, settings.get(name, {}), defaults or {})

        model_class = MODELS[model]
        split = config_of(SplitConfig, "split")
        if unknown := sorted(set(split.told) - {"timestamp", *dataset.context}):
            known = ", ".join(["timestamp", *dataset.context])
            raise ConfigError(f"split.request names {unknown[0]!r}, which the log does not hold; it holds {known}")
        include_seen = settings.get("recommend", {}).get("include_seen")
        if include_seen is None:
            include_seen = _people_come_back(dataset, split)
        return cls(
            model_name=model,
            model=config_of(model_class.Config, "model", model_class.defaults_for(dataset, split)),
            split=split,
            training=config_of(TrainingConfig, "training", {"batch_size": usual_batch_size(dataset.num_interactions)}),
            update=config_of(UpdateConfig, "update"),
            encoder=config_of(EncoderConfig, "encoder"),
            include_seen=config_of(_RecommendConfig, "recommend", {"include_seen": include_seen}).include_seen,
        )

    def to_toml(self) -> Tables:
        """Return the tables that `resolve` reads back."""
        return {
            "model": to_table(self.model),
            "split": to_table(self.split),
            "training": to_table(self.training),
            "update": to_table(self.update),
            "encoder": to_table(self.encoder),
            "recommend": {"include_seen": self.include_seen},
        }


@dataclass(frozen=True, kw_only=True)
class _RecommendConfig:
    include_seen: bool
    """The [recommend] table."""


def _people_come_back(dataset: Dataset, split: SplitConfig) -> bool:
    """Measure on the training part whether people often return to items they had."""
    segments = split_dataset(dataset, split).train
    positions = segments.positions()
    users = np.repeat(np.arange(len(segments.start)), segments.end - segments.start)
    distinct = len(np.unique(users * (len(dataset.items) + 1) + dataset.item_index[positions]))
    return len(positions) > 0 and 1 - distinct / len(positions) > REPEATS_MATTER
