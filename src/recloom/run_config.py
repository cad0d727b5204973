"""Everything that decides a fit beside the data, and the rules that fill in what the user left open."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from recloom.config import Tables, build, suggestion, to_table
from recloom.dataset import Dataset, SplitConfig, split_dataset
from recloom.errors import ConfigError
from recloom.models import MODELS, Model, Pretrained, TrainedModel, VectorModel, Weave
from recloom.training import PrivacyConfig, TrainingConfig, UpdateConfig, usual_batch_size

REPEATS_MATTER = 0.2
"""Where more than this share of interactions is with an item the user had before, seen items stay in the lists."""

PRIVATE_TRAINING = {"epochs": 10, "learning_rate": 5e-3}
"""How training under `privacy.epsilon` goes where the user does not say: every pass spends."""
NOT_PRIVATE_TRAINING = ("teacher", "pretrained", "budget", "half_life_days")
"""A teacher has learned without noise, as has a pretrained model, the clock depends on how long histories are, and age
on the newest of all."""


PROFILES: Mapping[str, Tables] = {
    "small": {
        "model": {"embedding_dim": 64, "hidden_dim": 64, "text_dim": 64, "num_negatives": 512},
        "training": {"batch_size": 128, "validation_cases": 1_000},
        "encoder": {"max_tokens": 64},
    },
}
"""Named sets of settings: `small` fits and serves within 1 GB of memory (benchmarks/memory.md)."""


def profile_settings(name: str, model: str) -> Tables:
    """Return the settings of a profile that have a meaning for a model, for `Recommender.fit` to start from.

    Raises:
        ConfigError: There is no such profile or model.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}; {suggestion(name, list(PROFILES))}")
    if model not in MODELS:
        raise ConfigError(f"unknown model {model!r}; {suggestion(model, list(MODELS))}")
    options = {field.name for field in fields(MODELS[model].Config)}
    profile = {table: dict(values) for table, values in PROFILES[name].items()}
    return profile | {"model": {option: value for option, value in profile["model"].items() if option in options}}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What reads the item text and looks at pictures, and how: the [encoder] table of a run file."""

    name: str = "auto"
    """`minilm`, `multilingual`, `hashing`, `openai:MODEL`, a folder, a hub name; `auto` looks at the script of the
    text; `none` uses no text."""
    template: str | None = None
    """Text of an item, with catalogue columns in braces: "{title} by {brand}". Unset: all text columns."""
    max_tokens: int = 128
    """Longest text that is read, in the model's tokens; the rest is cut off."""
    int8: bool = False
    """Read with 8-bit weights in ONNX Runtime: faster, vectors a little different."""
    image: str = "auto"
    """What looks at the pictures of the catalogue's `image` column: `efficientnet`, a folder or a hub name of a vision
    model; `auto` is efficientnet where it is installed; `none` leaves pictures aside."""
    vectors: bool = True
    """Whether the catalogue's columns `vector:NAME` are read."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a fit beside the data."""

    model_name: str
    model: Any
    """The model's own config class."""
    split: SplitConfig
    training: TrainingConfig
    privacy: PrivacyConfig
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
        tables = {"model", "split", "training", "privacy", "update", "encoder", "recommend"}
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
        privacy = config_of(PrivacyConfig, "privacy")
        model_defaults = dict(model_class.defaults_for(dataset, split))
        if settings.get("training", {}).get("pretrained") is not None and not issubclass(model_class, Weave):
            raise ConfigError(f"{model} cannot begin with a pretrained model; weave can")
        pretrained = _pretrained_by(settings)
        if pretrained is not None:
            model_defaults |= pretrained.options
        training_defaults: dict[str, Any] = {"batch_size": usual_batch_size(dataset.num_interactions // privacy.shards)}
        if privacy.epsilon is not None:
            _check_private(model_class, settings)
            assert issubclass(model_class, TrainedModel)
            # Nothing that is kept in the model may have been read off what people did.
            model_defaults |= {**model_class.private_defaults, **model_class.private_options}
            training_defaults |= PRIVATE_TRAINING
            include_seen = bool(include_seen)
        if include_seen is None:
            include_seen = _people_come_back(dataset, split)
        training = config_of(TrainingConfig, "training", training_defaults)
        if privacy.shards > 1:
            _check_shards(model_class, training)
        return cls(
            model_name=model,
            model=config_of(model_class.Config, "model", model_defaults),
            split=split,
            training=training,
            privacy=privacy,
            update=config_of(UpdateConfig, "update"),
            encoder=_encoder_config(settings.get("encoder", {}), pretrained),
            include_seen=config_of(_RecommendConfig, "recommend", {"include_seen": include_seen}).include_seen,
        )

    def to_toml(self) -> Tables:
        """Return the tables that `resolve` reads back."""
        return {
            "model": to_table(self.model),
            "split": to_table(self.split),
            "training": to_table(self.training),
            "privacy": to_table(self.privacy),
            "update": to_table(self.update),
            "encoder": to_table(self.encoder),
            "recommend": {"include_seen": self.include_seen},
        }


def _pretrained_by(settings: Tables) -> Pretrained | None:
    """Open the pretrained model that decides what settings leave open; None where there is nothing to decide.

    The settings of a fitted model leave nothing open, so that it can be loaded when the folder is gone.
    """
    folder, model = settings.get("training", {}).get("pretrained"), settings.get("model", {})
    if not isinstance(folder, str) or {"embedding_dim", "hidden_dim", "text_dim"} <= set(model):
        return None
    return Pretrained.load(Path(folder))


def _encoder_config(values: Mapping[str, Any], pretrained: Pretrained | None) -> EncoderConfig:
    if pretrained is None or values.get("name", "auto") != "auto":
        return build(EncoderConfig, "encoder", values, {})
    return build(EncoderConfig, "encoder", {n: v for n, v in values.items() if n != "name"}, pretrained.encoder)


@dataclass(frozen=True, kw_only=True)
class _RecommendConfig:
    include_seen: bool
    """The [recommend] table."""


def _check_shards(model_class: type[Model], training: TrainingConfig) -> None:
    """Refuse what cannot be learned shard by shard."""

    def is_able(known: type[Model]) -> bool:
        return issubclass(known, TrainedModel) and issubclass(known, VectorModel) and known.can_resume

    if not is_able(model_class):
        able = ", ".join(name for name, known in MODELS.items() if is_able(known))
        raise ConfigError(f"privacy.shards is for {able}; {model_class.name} is fitted whole, leave it out")
    if training.teacher is not None:
        raise ConfigError(
            "training.teacher has learned from everybody, and would tell each of the privacy.shards of people in the"
            " others; leave one of them out"
        )


def _check_private(model_class: type[Model], settings: Tables) -> None:
    """Refuse what would learn from people otherwise than by noised gradients."""
    allowed = getattr(model_class, "private_options", {})
    if not allowed:
        able = ", ".join(name for name, known in MODELS.items() if getattr(known, "private_options", {}))
        raise ConfigError(f"privacy.epsilon cannot be kept by {model_class.name}; choose {able}")
    chosen = settings.get("model", {})
    for option, value in allowed.items():
        if option in chosen and chosen[option] != value:
            raise ConfigError(
                f"model.{option} is {chosen[option]}, which would learn from counts of what people did, with no noise;"
                f" under privacy.epsilon leave it out"
            )
    if settings.get("training", {}).get("epochs") == 0:
        raise ConfigError(
            "training.epochs is 0, and under privacy.epsilon a model begins with nothing; take at least 1"
        )
    for option in NOT_PRIVATE_TRAINING:
        if settings.get("training", {}).get(option) is not None:
            raise ConfigError(
                f"training.{option} would let people's data in another way than by noised gradients; under"
                " privacy.epsilon leave it out"
            )


def _people_come_back(dataset: Dataset, split: SplitConfig) -> bool:
    """Measure on the training part whether people often return to items they had."""
    segments = split_dataset(dataset, split).train
    num_items, distinct = len(dataset.items) + 1, 0
    for block in segments.blocks():
        user = np.repeat(np.arange(len(block.start)), block.end - block.start)
        distinct += len(np.unique(user * num_items + dataset.item_index[block.positions()]))
    return distinct > 0 and 1 - distinct / segments.num_interactions > REPEATS_MATTER
