"""A large model and a small one -> the small one, having learned what the large one knows."""

from dataclasses import replace

from recloom.config import to_table
from recloom.dataset import split_dataset
from recloom.errors import ConfigError
from recloom.fitting import new_model
from recloom.models import Teacher, TrainedModel, TrainingData, VectorModel
from recloom.models.weave import Weave
from recloom.recommender import Recommender
from recloom.run_config import RunConfig
from recloom.training import Progress, train

PUPIL_WIDTH = 64
"""Of item vectors and of the network."""
LESSONS, FEWEST_EPOCHS = 1.5, 10
"""Epochs of a pupil that begins from nothing, as a multiple of what its teacher took; and how many at least."""
FINE_TUNING = 0.5
"""Epochs, and step size, of a pruned model as a share of those of its training."""
SHARE = 0.7
"""How much of the loss is disagreement with the teacher."""


def distill(recommender: Recommender, progress: Progress | None) -> Recommender:
    """Train a small `weave` on what people did and on what a model thinks of it.

    Args:
        recommender: Any model that has a query for each step.
        progress: Told about each step.

    Raises:
        ConfigError: The model has no opinion on single steps, or is as small already.
    """
    config = _pupil_config(recommender)
    pupil = new_model(recommender.dataset, config, recommender.text)
    assert isinstance(pupil, Weave)
    pupil.prepare(_learned_from(recommender))
    epochs = max(FEWEST_EPOCHS, round(LESSONS * (recommender.run.best_epoch or 0)))
    return _taught(recommender, pupil, replace(config, training=replace(config.training, epochs=epochs)), progress)


def fine_tune(recommender: Recommender, pruned: Weave, progress: Progress | None) -> Recommender:
    """Train what was cut out of a model on, so that it makes up for what it lost."""
    training = recommender.config.training
    epochs = max(FEWEST_EPOCHS, round(FINE_TUNING * (recommender.run.best_epoch or 0)))
    training = replace(training, epochs=epochs, learning_rate=FINE_TUNING * training.learning_rate)
    pruned.resume(_learned_from(recommender))
    config = replace(recommender.config, model=pruned.config, training=training)
    return _taught(recommender, pruned, config, progress)


def _taught(recommender: Recommender, pupil: Weave, config: RunConfig, progress: Progress | None) -> Recommender:
    """Train a pupil for a fixed number of epochs: validation, which the teacher may have learned from, is not asked."""
    model = recommender.model
    assert isinstance(model, VectorModel)
    pupil.learn_from(Teacher(model, SHARE))
    if isinstance(model, Weave):
        pupil.tune_like(model)
    result = train(pupil, _learned_from(recommender), config.training, validate=None, progress=progress)
    if result.stopped == "interrupted":
        raise KeyboardInterrupt  # half a pupil is no model
    kept = replace(config, training=recommender.config.training)
    return Recommender(recommender.dataset, pupil, kept, recommender.text, recommender.counts_I, recommender.run)


def _learned_from(recommender: Recommender) -> TrainingData:
    """Return what the model was fitted on in the end; nothing of the test."""
    if recommender.run.privacy:
        raise ConfigError(
            "the model was fitted with privacy.epsilon, and distilling or pruning it would learn without noise; use"
            " --method int8, or fit a smaller one"
        )
    split = split_dataset(recommender.dataset, recommender.config.split)
    return TrainingData(recommender.dataset, split.full if recommender.run.refit else split.train)


def _pupil_config(recommender: Recommender) -> RunConfig:
    config, model = recommender.config, recommender.model
    sizes = {"embedding_dim": PUPIL_WIDTH, "hidden_dim": PUPIL_WIDTH}
    if isinstance(model, Weave):
        if max(model.config.embedding_dim, model.config.hidden_dim) <= PUPIL_WIDTH:
            raise ConfigError(
                f"the model is {model.config.embedding_dim} and {model.config.hidden_dim} wide, and distilling makes"
                f" one of {PUPIL_WIDTH}; use --method int8"
            )
        # A small network that follows a teacher has less to be kept from learning by heart.
        taught = to_table(model.config) | sizes | {"dropout": model.config.dropout / 2}
        return replace(config, model=Weave.Config(**taught))
    if isinstance(model, TrainedModel) and isinstance(model, VectorModel):
        tables = config.to_toml() | {"model": sizes | {"max_length": model.max_length}, "privacy": {}}
        return RunConfig.resolve("weave", recommender.dataset, tables)
    raise ConfigError(f"{config.model_name} has no opinion on single steps, so it cannot teach; distill a weave")
