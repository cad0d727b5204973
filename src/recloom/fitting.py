"""How a model comes to be: the catalogue's text is read, the model trained, and trained further on what is new."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from recloom.config import to_table
from recloom.dataset import PADDING_INDEX, Cases, Dataset, Growth, Histories, Split, Vocabulary, gather
from recloom.encoders import (
    Blocks,
    Encoder,
    ImageEncoder,
    Problems,
    describe_problems,
    encode_pictures,
    encode_texts,
    item_texts,
    item_titles,
    load_encoder,
    load_image_encoder,
    modality_cells,
    modality_names,
    parse_vectors,
    read_adaptation,
    suggest_encoder,
    usual_width,
)
from recloom.encoders.language_model import LanguageModelEncoder
from recloom.errors import ArtifactError, ConfigError, MissingExtraError
from recloom.evaluation import metric_values
from recloom.events import IMAGE
from recloom.models import (
    MODELS,
    CountedModel,
    ItemText,
    Modality,
    Model,
    Pretrained,
    Sharded,
    Teacher,
    TrainedModel,
    TrainingData,
    gathered_lists,
    moved,
)
from recloom.run_config import EncoderConfig, RunConfig
from recloom.training import (
    Epoch,
    PrivateRelease,
    Progress,
    TrainingResult,
    new_and_replayed,
    refit_checkpoint,
    train,
    train_privately,
)
from recloom.workers import ALONE, Workers

NEWS_ASKED = 2_000
"""Most people whose first new interaction an update chooses by, so that it stays cheap beside a fit."""
UNVALIDATED_EPOCHS = 20
"""How long to train where there is nobody to ask whether it helps."""
CACHE_NAME = "embeddings.h5"


def read_catalogue(
    dataset: Dataset,
    config: RunConfig,
    progress: Progress | None,
    elsewhere: Callable[[EncoderConfig], Blocks] | None = None,
    known: Sequence[Modality] = (),
) -> tuple[ItemText | None, Encoder | None, EncoderConfig, list[str]]:
    """Encode the item text, and what there is beside it.

    Args:
        dataset: What holds the catalogue; vectors are kept beside it.
        config: The run.
        progress: Told what is going on.
        elsewhere: Makes of a choice of encoder what encodes as it does, on other machines.
        known: Modalities of this very catalogue that were read before, and whose files may be gone.

    Returns:
        What came of it, the encoder, how it was chosen, and warnings; None and None where no text is read.
    """
    model_class = MODELS[config.model_name]
    others, options, warnings = read_modalities(dataset, config, known, progress)
    texts = item_texts(dataset.item_table, options.template)
    pretrained = load_pretrained(config)
    if pretrained is not None and (options.name == "none" or not any(texts)):
        found = "the encoder is none" if any(texts) else "the catalogue has no text columns"
        raise ConfigError(
            f"the pretrained model {config.training.pretrained} knows items by their text, but {found}; leave it out"
        )
    if options.name == "none" or not any(texts) or not model_class.uses_text:
        if others:
            titles = ["", *item_titles(dataset.item_table)]
            return ItemText.without_words(titles, others), None, replace(options, name="none"), warnings
        if model_class.needs_text:
            found = "the encoder is none" if any(texts) else "the catalogue has no text columns"
            raise ConfigError(f"{config.model_name} reads item text, but {found}; choose another model or encoder")
        return None, None, options, warnings
    _check_adaptation(dataset, config)
    chosen = replace(options, name=suggest_encoder(texts) if options.name == "auto" else options.name)
    try:
        encoder = encoder_of(chosen)
    except MissingExtraError as error:
        if options.name != "auto":
            raise
        chosen = replace(options, name="hashing")
        encoder = encoder_of(chosen)
        warnings.append(f"item text was read without a language model: {error}")
    if pretrained is not None and pretrained.fingerprint != encoder.fingerprint:
        raise ConfigError(
            f"the pretrained model {config.training.pretrained} was made with the encoder {pretrained.encoder['name']},"
            f" whose vectors are not those of the encoder {chosen.name} here; leave the encoder out, or pretrain with"
            " this one"
        )
    spread = elsewhere(chosen) if elsewhere else None
    read = _reader(lambda: encoder, dataset.path.with_name(CACHE_NAME), progress, spread)
    vectors_IE = np.concatenate([np.zeros((1, encoder.embedding_dim), dtype=np.float32), read(texts)])
    if isinstance(encoder, LanguageModelEncoder):
        encoder.release()  # training needs the memory
    return ItemText(vectors_IE, ["", *item_titles(dataset.item_table)], read, others), encoder, chosen, warnings


def _check_adaptation(dataset: Dataset, config: RunConfig) -> None:
    """Refuse an encoder that was adapted on interactions which this split holds out, or that are to be private."""
    record = read_adaptation(Path(config.encoder.name))
    if record is not None and config.privacy.epsilon is not None:
        raise ConfigError(
            f"the encoder {config.encoder.name} was adapted on what people took, without noise; under privacy.epsilon"
            " choose one that was not"
        )
    if record is None or record["dataset"] != dataset.fingerprint or config.split.everything:
        return
    held_out = to_table(config.split)
    if {**record["split"], "request": None} != {**held_out, "request": None}:
        raise ConfigError(
            f"the encoder {config.encoder.name} was adapted on this dataset under the split {record['split']}, and"
            f" would have seen what {to_table(config.split)} holds out; adapt it under the same split"
        )


def load_pretrained(config: RunConfig) -> Pretrained | None:
    """Open what a run is to begin with; None where that is nothing.

    Raises:
        ArtifactError: The folder holds no pretrained model.
    """
    folder = config.training.pretrained
    return None if folder is None else Pretrained.load(Path(folder))


def encoder_of(config: EncoderConfig, device: str = "cpu") -> Encoder:
    """Load the encoder that a config names."""
    return load_encoder(config.name, max_tokens=config.max_tokens, int8=config.int8, device=device)


def read_modalities(
    dataset: Dataset, config: RunConfig, known: Sequence[Modality], progress: Progress | None
) -> tuple[tuple[Modality, ...], EncoderConfig, list[str]]:
    """Have pictures looked at, and vectors of the user's own read, as far as the model makes use of them.

    Arguments as for `read_catalogue`.

    Returns:
        What can be used of it, how the image encoder was chosen, and warnings.
    """
    options = chosen = config.encoder
    read_before = {other.name: other for other in known}
    others, warnings, made_by = list[Modality](), list[str](), dict[str, str]()
    names = modality_names(dataset.item_table) if MODELS[config.model_name].uses_modalities else []
    for name in names:
        if options.image == "none" if name == IMAGE else not options.vectors:
            continue
        if name in read_before:
            others.append(read_before[name])
            continue
        cells = modality_cells(dataset.item_table, name)
        try:
            if name == IMAGE:
                chosen = replace(options, image="efficientnet" if options.image == "auto" else options.image)
                encoder, read = _image_encoder(chosen.image, dataset.path.with_name(CACHE_NAME), progress)
                made_by[name] = encoder.fingerprint
            else:
                read = partial(parse_vectors, width=usual_width(cells))
            vectors_NE, problems = read(cells)
        except MissingExtraError as error:
            if name != IMAGE or options.image != "auto":
                raise
            chosen = options
            warnings.append(f"the pictures of the catalogue were not looked at: {error}")
            continue
        if problems:
            warnings.append(describe_problems(name, problems))
        if vectors_NE.any():
            padding_1E = np.zeros((1, vectors_NE.shape[1]), dtype=np.float32)
            others.append(Modality(name, np.concatenate([padding_1E, vectors_NE]), read, made_by.get(name, "")))
        if name == IMAGE:
            encoder.release()  # training needs the memory
    return tuple(others), chosen, warnings


def _image_encoder(
    name: str, cache: Path, progress: Progress | None
) -> tuple[ImageEncoder, Callable[[Sequence[str]], tuple[np.ndarray, Problems]]]:
    encoder = load_image_encoder(name)
    return encoder, _picture_reader(lambda: encoder, cache, progress)


def opened_modality(config: EncoderConfig, name: str, vectors_IE: np.ndarray, made_by: str) -> Modality:
    """Return a modality that was read before; the encoder of a config is loaded when more is to be read.

    Args:
        config: The run's.
        name: The catalogue's column.
        vectors_IE: What was read.
        made_by: Fingerprint of the encoder that made it; reading raises ArtifactError where there is another one now.
    """

    def load() -> ImageEncoder:
        encoder = load_image_encoder(config.image)
        if encoder.fingerprint != made_by:
            raise ArtifactError(
                f"the image encoder {config.image} is not the one that the model was fitted with; bring that back, or"
                " fit the model again"
            )
        return encoder

    if name == IMAGE:
        return Modality(name, vectors_IE, _picture_reader(load, cache=None), made_by)
    return Modality(name, vectors_IE, partial(parse_vectors, width=vectors_IE.shape[1]))


def portable(text: ItemText, config: EncoderConfig) -> ItemText:
    """Return the same item text for another process: more is read by encoders that are loaded where they are needed."""
    others = tuple(opened_modality(config, one.name, one.vectors_IE, one.made_by) for one in text.others)
    return replace(text, read=text.read if config.name == "none" else text_reader(config), others=others)


def _picture_reader(
    load: Callable[[], ImageEncoder], cache: Path | None, progress: Progress | None = None
) -> Callable[[Sequence[str]], tuple[np.ndarray, Problems]]:
    """Return a function from cells of the image column to vectors that loads the encoder when first called."""
    loaded: list[ImageEncoder] = []

    def read(cells: Sequence[str]) -> tuple[np.ndarray, Problems]:
        if not loaded:
            loaded.append(load())
        report = (lambda done, total: progress("looking at pictures", done, total)) if progress else None
        return encode_pictures(loaded[0], cells, cache=cache, progress=report)

    return read


def text_reader(config: EncoderConfig, cache: Path | None = None) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from texts to vectors that loads the encoder of a config when first called."""
    return _reader(lambda: encoder_of(config), cache)


def _reader(
    load: Callable[[], Encoder],
    cache: Path | None,
    progress: Progress | None = None,
    elsewhere: Blocks | None = None,
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from texts to vectors that loads the encoder when first called."""
    loaded: list[Encoder] = []

    def read(texts: Sequence[str]) -> np.ndarray:
        if not loaded:
            loaded.append(load())
        report = (lambda done, total: progress("reading item text", done, total)) if progress else None
        return encode_texts(loaded[0], texts, cache=cache, progress=report, elsewhere=elsewhere)

    return read


def fit_model(
    dataset: Dataset,
    split: Split,
    config: RunConfig,
    text: ItemText | None,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    after_epoch: Callable[[Epoch], None] | None = None,
    workers: Workers = ALONE,
) -> tuple[TrainingResult | None, Model, bool]:
    """Train a model as a config says, which promises no privacy.

    Several workers call this side by side; the model that counts is that of the one that leads.

    Returns:
        The result of training, the fitted model, and whether it was fitted on validation too.
    """
    if config.privacy.epsilon is not None:
        raise ConfigError(
            "privacy.epsilon is for fitting a single model: tuning chooses by what people did, which nothing accounts"
            " for; leave it out here"
        )
    if config.privacy.shards > 1:
        raise ConfigError("privacy.shards is for fitting a model that is to forget people; leave it out here")
    full, train_part = TrainingData(dataset, split.full), TrainingData(dataset, split.train)
    model = new_model(dataset, config, text)
    if isinstance(model, CountedModel):
        # It has no epochs to choose by validation, so it learns from all that comes before the test.
        model.count(full)
        return None, model, True
    assert isinstance(model, TrainedModel)
    training = config.training
    # Where validation holds nothing that was not learned from, as under leave-one-out, there is nothing to add.
    growth = split.full.num_interactions / max(1, split.train.num_interactions)
    refit = training.refit and growth > 1
    if teacher is not None:
        model.learn_from(teacher)
    pretrained = load_pretrained(config)
    if pretrained is not None:
        model.begin_with(pretrained)
    if len(split.validation) == 0:
        # Too little data to hold validation out: train as long as the config says, on everything.
        model.prepare(full)
        guess = replace(training, epochs=min(training.epochs, UNVALIDATED_EPOCHS))
        return train(model, full, guess, validate=None, progress=progress, workers=workers), model, True
    model.prepare(train_part)
    # A refit takes no more epochs than the search, each longer by the growth of the data.
    search = replace(training, budget=0.98 * training.budget / (1 + growth)) if training.budget and refit else training
    origins = f"{teacher.digest if teacher else None} {pretrained.digest if pretrained else None}"
    digest = hashlib.sha256(f"{dataset.fingerprint} {config.to_toml()} {origins}".encode())
    for vectors in () if text is None else text.all_vectors:
        digest.update(np.ascontiguousarray(vectors).data)
    key = digest.hexdigest()
    cases = split.validation.sample(training.validation_cases, training.seed)
    asked, target_B = _asked(dataset, cases, model, config)

    result = train(
        model,
        train_part,
        search,
        validate=lambda: _validated(model, asked, target_B, config, workers),
        judge_beginning=pretrained is not None,
        checkpoint=checkpoint,
        key=key,
        progress=progress,
        after_epoch=after_epoch,
        workers=workers,
    )
    if workers.is_lead:
        model.tune(asked, torch.from_numpy(target_B), config.include_seen, _was_there(full, config))
        result = replace(result, best_validation=_validated(model, asked, target_B, config, ALONE))
    if not refit or result.stopped == "interrupted":
        return result, model, False
    final = new_model(dataset, config, text)
    assert isinstance(final, TrainedModel)
    if pretrained is not None:
        final.begin_with(pretrained)
    final.prepare(full)
    if teacher is not None:
        final.learn_from(teacher)
    final.tune_like(model)
    rest = replace(training, epochs=result.best_epoch, patience=max(1, result.best_epoch), budget=None)
    again = train(
        final,
        full,
        rest,
        validate=None,
        checkpoint=refit_checkpoint(checkpoint) if checkpoint else None,
        key=f"{key} for {result.best_epoch} epochs",
        progress=progress,
        workers=workers,
    )
    return (result, model, False) if again.stopped == "interrupted" else (result, final, True)


def _asked(dataset: Dataset, cases: Cases, model: Model, config: RunConfig) -> tuple[Histories, np.ndarray]:
    """Return what cases ask of a model, and the answers."""
    ends, told = cases.history_end, config.split.told
    histories = gather(dataset, cases.history_start, ends, model.max_length, cases.target, told)
    return histories, dataset.item_index[cases.target].astype(np.int64)


def _was_there(full: TrainingData, config: RunConfig) -> torch.Tensor:
    """Return which items were there to choose from when validation asked, as far as can be told; shape (I,).

    A catalogue that is as old as the log was there. Where the end of the log is held out the catalogue is younger: what
    nobody had taken when validation ended may have come later, and would look like something new that nobody wants.
    """
    if config.split.everything:
        is_there_I = torch.ones(len(full.dataset.items) + 1, dtype=torch.bool)
        is_there_I[PADDING_INDEX] = False
        return is_there_I
    return torch.from_numpy(full.item_counts() > 0)


def _validated(
    model: TrainedModel, asked: Histories, target_B: np.ndarray, config: RunConfig, workers: Workers
) -> float:
    """Return NDCG@10 on validation, of whole lists that the workers have ranked together."""
    lists = gathered_lists(model, asked, 10, config.include_seen, workers)
    return float(metric_values(lists, target_B, [10])["NDCG@10"].mean())


def fit_privately(
    dataset: Dataset, split: Split, config: RunConfig, text: ItemText | None, progress: Progress | None = None
) -> tuple[TrainingResult, Model, PrivateRelease]:
    """Train a model under `privacy.epsilon`, on all that comes before the test.

    Returns:
        The result of training, the fitted model, and what else was released, with the account of it.
    """
    model = new_model(dataset, config, text)
    assert isinstance(model, TrainedModel)
    model.prepare_privately()
    data = TrainingData(dataset, split.full)
    result, release = train_privately(model, data, config.training, config.privacy, progress=progress)
    return result, model, release


def learn_further(
    model: TrainedModel,
    data: TrainingData,
    growth: Growth,
    config: RunConfig,
    moments: dict[str, torch.Tensor],
    progress: Progress | None,
) -> dict[str, torch.Tensor]:
    """Train on what is new and some of the old; return what the optimiser remembers then.

    What gradient steps do not learn is chosen before, as after a fit: by what everybody did first, which nothing has
    learned from yet.
    """
    cases = growth.first_cases().sample(min(NEWS_ASKED, config.training.validation_cases), config.training.seed)
    if len(cases):
        asked, target_B = _asked(growth.dataset, cases, model, config)
        model.tune(asked, torch.from_numpy(target_B), config.include_seen, _was_there(data, config))
    model.resume(data)
    seed = config.training.seed + int(growth.is_new_N.sum())  # other old windows each time
    stretches = new_and_replayed(data, growth.is_new_N, model.max_length, config.update, seed)
    if len(stretches[0]) == 0:
        return moments
    learning_rate = config.update.learning_rate * config.training.learning_rate
    training = replace(config.training, epochs=1, budget=None, learning_rate=learning_rate)
    result = train(model, data, training, validate=None, stretches=stretches, moments=moments, progress=progress)
    return result.moments


def new_model(dataset: Dataset, config: RunConfig, text: ItemText | None) -> Model:
    """Return the model of a config as it is before it learns."""
    torch.manual_seed(config.training.seed)
    return blank_model(dataset, config, text)


def blank_model(dataset: Dataset, config: RunConfig, text: ItemText | None) -> Model:
    """Return the model of a config, for weights that are there already."""
    members = [MODELS[config.model_name](config.model, dataset, text) for _ in range(config.privacy.shards)]
    return members[0] if len(members) == 1 else Sharded(members, dataset)


def indices_in(others: Vocabulary, items: Vocabulary) -> torch.Tensor:
    """Return for each item its index in another catalogue, -1 where that lacks it; padding comes first, and stays."""
    index_I = torch.from_numpy(others.indices_of(items.ids)).long()
    return torch.cat([torch.zeros(1, dtype=torch.long), torch.where(index_I > 0, index_I, -1)])


def carried_moments(
    model: Model, other: Model, source_I: torch.Tensor, moments: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return what the optimiser of another model remembers in the places where the rows of this one's tables are."""
    sources = model.row_sources(other, source_I)
    carried = {}
    for name, values in moments.items():
        source_R = sources.get(name.rpartition(".")[0]) if values.dim() else None
        if source_R is not None:
            values = moved(values, source_R, values.new_zeros(len(source_R), *values.shape[1:]))
        carried[name] = values
    return carried
