"""A large model and a small one -> the small one, having learned what the large one knows."""

from collections.abc import Sequence
from dataclasses import replace

from recloom.config import to_table
from recloom.dataset import split_dataset
from recloom.errors import ConfigError
from recloom.fitting import new_model
from recloom.models import Ensemble, Teacher, TrainedModel, TrainingData, VectorModel
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


def distill(recommender: Recommender, progress: Progress | None, also: Sequence[Recommender] = ()) -> Recommender:
    """Train a small `weave` on what people did and on what a model thinks of it, or several on average.

    Args:
        recommender: Any model that has a query for each step.
        progress: Told about each step.
        also: Further ones of the same dataset and split.

    Raises:
        ConfigError: A model has no opinion on single steps, knows other data, or the pupil would be no smaller.
    """
    config = _pupil_config(recommender)
    teacher = _teacher(recommender, also)
    if teacher.max_length < config.model.max_length:
        config = replace(config, model=replace(config.model, max_length=teacher.max_length))
    pupil = new_model(recommender.dataset, config, recommender.text)
    assert isinstance(pupil, Weave)
    pupil.prepare(_learned_from(recommender))
    epochs = max(FEWEST_EPOCHS, round(LESSONS * (recommender.run.best_epoch or 0)))
    config = replace(config, training=replace(config.training, epochs=epochs))
    return _taught(recommender, teacher, pupil, config, progress)


def _teacher(recommender: Recommender, also: Sequence[Recommender]) -> VectorModel:
    """Return what the pupil learns from: a model, or the mean of several."""
    minds = []
    for other in (recommender, *also):
        if (
            other.dataset.fingerprint != recommender.dataset.fingerprint
            or other.config.split != recommender.config.split
        ):
            raise ConfigError(
                "models that teach together have to be fitted on the same dataset under the same split, or one could"
                " tell what the other holds out; fit them alike"
            )
        if other.run.refit and not recommender.run.refit:
            raise ConfigError(
                "one of the models that teach together has learned from validation in the end and another has not; fit"
                " both with the same training.refit"
            )
        if not isinstance(other.model, TrainedModel) or not isinstance(other.model, VectorModel):
            raise ConfigError(f"{other.config.model_name} has no opinion on single steps, so it cannot teach")
        minds.append(other.model)
    return Ensemble(minds, recommender.dataset) if also else minds[0]


def fine_tune(recommender: Recommender, pruned: Weave, progress: Progress | None) -> Recommender:
    """Train what was cut out of a model on, so that it makes up for what it lost."""
    training = recommender.config.training
    epochs = max(FEWEST_EPOCHS, round(FINE_TUNING * (recommender.run.best_epoch or 0)))
    training = replace(training, epochs=epochs, learning_rate=FINE_TUNING * training.learning_rate)
    pruned.resume(_learned_from(recommender))
    config = replace(recommender.config, model=pruned.config, training=training)
    assert isinstance(recommender.model, VectorModel)
    return _taught(recommender, recommender.model, pruned, config, progress)


def _taught(
    recommender: Recommender, teacher: VectorModel, pupil: Weave, config: RunConfig, progress: Progress | None
) -> Recommender:
    """Train a pupil for a fixed number of epochs: validation, which the teacher may have learned from, is not asked."""
    pupil.learn_from(Teacher(teacher, SHARE))
    if isinstance(recommender.model, Weave):
        pupil.tune_like(recommender.model)
    result = train(pupil, _learned_from(recommender), config.training, validate=None, progress=progress)
    if result.stopped == "interrupted":
        raise KeyboardInterrupt  # half a pupil is no model
    # It has another form than what its teacher may have begun with.
    kept = replace(config, training=replace(recommender.config.training, pretrained=None))
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
