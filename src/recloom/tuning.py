"""A model and a search space -> the settings that validation likes best, and whether that is more than luck."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from recloom.cluster.tuning import try_on_ray
from recloom.config import Tables
from recloom.dataset import Cases, Dataset, Split, gather, split_dataset
from recloom.errors import ConfigError, TrainingError
from recloom.evaluation import metric_values
from recloom.evaluation.significance import PairedDifference, paired_difference
from recloom.fitting import fit_model, new_model, portable, read_catalogue
from recloom.models import MODELS, CountedModel, ItemText, Model, Ranker, Span, TrainingData
from recloom.models.pretrained import SHAPES
from recloom.recommender import load_teacher
from recloom.run_config import EncoderConfig, RunConfig
from recloom.training import Epoch, Progress

METRIC = "NDCG@10"
Space = Mapping[str, Span | Sequence[Any]]
ValueOf = Callable[..., float]
"""From options, and who is told of each epoch, to what they reach."""
WARM_TRIALS, WARM_EPOCHS = 5, 3
"""Trials and epochs that are never cut short: a bad beginning says little."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

    number: int
    settings: dict[str, Any]
    """By table and name: "model.dropout"."""
    value: float | None
    """NDCG@10 on the half of validation that chooses; None where it was cut short or broke down."""
    seconds: float


@dataclass(frozen=True)
class Tuning:
    """What came of the search."""

    model: str
    settings: Tables
    """The best settings, as a run file holds them; empty where the defaults are best."""
    trials: list[Trial]
    default: float
    """NDCG@10 of the defaults on the half of validation that chooses."""
    best: float
    gain: PairedDifference
    """Best minus defaults on the half of validation that had no part in choosing."""

    @property
    def is_real(self) -> bool:
        """Whether the gain is more than luck."""
        return self.gain.p_value < 0.05 and self.gain.mean > 0


def tune(
    dataset: Dataset,
    model: str = "weave",
    *,
    settings: Tables | None = None,
    trials: int = 30,
    budget: float | None = None,
    folder: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    on_ray: bool = False,
) -> Tuning:
    """Look for better settings of a model, by validation alone.

    One half of the validation users chooses; the other one, which had no say, tells what the choice is worth. Trials
    that fall behind are cut short. The search learns from what it has seen (tree-structured Parzen estimator).

    Source: Bergstra et al. (2011), https://papers.nips.cc/paper/4443; Akiba et al. (2019), "Optuna",
    https://arxiv.org/abs/1907.10902.

    Args:
        dataset: What people did and what the items say.
        model: A name of `recloom.models.MODELS`.
        settings: What stays as it is: options by table, as in a run file.
        trials: How many settings to try in all, those of an earlier run that is gone on with included.
        budget: Most seconds; the trial at hand is finished.
        folder: Where to keep the trials, so that a later call goes on. None: they are forgotten.
        seed: Decides what is tried.
        progress: Told what is going on.
        on_ray: Try settings side by side on the Ray cluster that this program is connected to. What is tried then
            depends on which trials end first, how each is judged does not.

    Raises:
        ConfigError: The model has nothing to tune, or the split holds no validation case.
    """
    settings = settings or {}
    base = RunConfig.resolve(model, dataset, settings)
    fixed = {f"{table}.{name}" for table, values in settings.items() for name in values}
    if base.training.pretrained is not None:
        fixed |= {f"model.{name}" for name in SHAPES}
    space = {name: values for name, values in MODELS[model].search_space.items() if name not in fixed}
    if not space:
        raise ConfigError(f"{model} has nothing to tune that is not set already")
    split = split_dataset(dataset, base.split)
    chooser, judge = _halves(split.validation.sample(base.training.validation_cases, base.training.seed))
    if len(judge) == 0:
        raise ConfigError("the split holds too few validation cases to tune by; prepare more data")
    text, _, chosen, _ = read_catalogue(dataset, base, progress)
    base = replace(base, encoder=chosen)
    asked = replace(split, validation=chooser)

    storage = _storage(folder)
    study = _study(model, base, dataset, space, storage)
    value_of = partial(_value, dataset, model, settings, asked, chosen, text, chooser)
    if (default := study.user_attrs.get("default")) is None:
        default = value_of({})
        study.set_user_attr("default", default)
    done = sum(trial.state.is_finished() for trial in study.trials)
    if on_ray and trials > done:
        there = partial(
            _value_there,
            dataset.path.absolute(),
            model,
            settings,
            asked,
            chosen,
            portable(text, chosen) if text else None,
            chooser,
        )
        try_on_ray(
            there,
            partial(_suggest, space=space),
            study.study_name,
            storage,
            trials - done,
            budget=budget,
            seed=seed * 1_000_003 + done,
            metric=METRIC,
            warm=(WARM_TRIALS, WARM_EPOCHS),
        )
    else:
        _try_one_by_one(value_of, space, study, range(done, trials), budget, seed, progress)
    best, best_value = {}, default
    finished = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if finished and study.best_value > default:
        best, best_value = study.best_params, study.best_value
    return Tuning(
        model=model,
        settings=_merged(settings, best),
        trials=[_plain(trial) for trial in study.trials if trial.state.is_finished()],
        default=default,
        best=best_value,
        gain=_gain(dataset, asked, base, _merged(settings, best), text, judge),
    )


def _try_one_by_one(
    value_of: ValueOf,
    space: Space,
    study: optuna.Study,
    numbers: range,
    budget: float | None,
    seed: int,
    progress: Progress | None,
) -> None:
    def objective(trial: optuna.Trial) -> float:
        return value_of(_suggest(trial, space), _reporting(trial))

    began = time.monotonic()
    for number in numbers:
        if budget is not None and time.monotonic() - began >= budget:
            break
        if progress:
            progress("tuning", number, numbers.stop)
        # Seeded by its number: a search that is gone on with tries what it would have tried without a break.
        study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + number) % 2**32, n_startup_trials=8)
        study.optimize(objective, n_trials=1, catch=(TrainingError,))


def _value(
    dataset: Dataset,
    model: str,
    settings: Tables,
    split: Split,
    encoder: EncoderConfig,
    text: ItemText | None,
    chooser: Cases,
    options: Mapping[str, Any],
    after_epoch: Callable[[Epoch], None] | None = None,
) -> float:
    """Return what some options reach on the cases that choose."""
    config = replace(RunConfig.resolve(model, dataset, _merged(settings, options)), encoder=encoder)
    fitted = _fit(dataset, split, config, text, after_epoch)
    return float(_ndcg(fitted, dataset, config, chooser).mean())


def _value_there(dataset: Path, *rest: Any) -> float:
    """Do the same where nothing is open yet, such as on another machine."""
    return _value(Dataset(dataset), *rest)


def _halves(cases: Cases) -> tuple[Cases, Cases]:
    """Part cases by user, at random."""
    is_chooser = np.random.default_rng(1).permutation(len(np.unique(cases.user_index))) % 2 == 0
    _, user = np.unique(cases.user_index, return_inverse=True)
    return cases.rows(np.flatnonzero(is_chooser[user])), cases.rows(np.flatnonzero(~is_chooser[user]))


def _storage(folder: Path | None) -> optuna.storages.BaseStorage:
    if folder is None:
        return optuna.storages.InMemoryStorage()
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(f"sqlite:///{folder / 'trials.db'}")


def _study(
    model: str, base: RunConfig, dataset: Dataset, space: Space, storage: optuna.storages.BaseStorage
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    key = f"{dataset.fingerprint} {model} {json.dumps(base.to_toml())} {space}"
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_TRIALS, n_warmup_steps=WARM_EPOCHS),
        load_if_exists=True,
    )


def _suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, values in space.items():
        if not isinstance(values, Span):
            chosen[name] = trial.suggest_categorical(name, list(values))
        elif isinstance(values.low, int) and isinstance(values.high, int):
            chosen[name] = trial.suggest_int(name, values.low, values.high, log=values.log)
        else:
            chosen[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
    return chosen


def _reporting(trial: optuna.Trial) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        if epoch.validation is not None:
            trial.report(epoch.validation, epoch.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    return report


def _fit(
    dataset: Dataset,
    split: Split,
    config: RunConfig,
    text: ItemText | None,
    after_epoch: Callable[[Epoch], None] | None = None,
) -> Model:
    """Fit on the training part alone: what validation asks is not to be learned from here."""
    if issubclass(MODELS[config.model_name], CountedModel):
        model = new_model(dataset, config, text)
        assert isinstance(model, CountedModel)
        model.count(TrainingData(dataset, split.train))
        return model
    config = replace(config, training=replace(config.training, refit=False))
    result, fitted, _ = fit_model(
        dataset, split, config, text, teacher=load_teacher(dataset, config), after_epoch=after_epoch
    )
    if result is not None and result.stopped == "interrupted":
        raise KeyboardInterrupt  # the search ends, and half a training is no trial
    return fitted


def _ndcg(model: Model, dataset: Dataset, config: RunConfig, cases: Cases) -> np.ndarray:
    """Return the metric of every case, shape (B,)."""
    histories = gather(
        dataset, cases.history_start, cases.history_end, model.max_length, cases.target, config.split.told
    )
    answered = np.flatnonzero(model.can_answer(histories))
    target_B = dataset.item_index[cases.target]
    ndcg_B = np.zeros(len(cases))
    if len(answered):
        lists = Ranker(model).rank(histories.rows(answered), 10, config.include_seen).item_index_BK
        ndcg_B[answered] = metric_values(lists, target_B[answered], [10])[METRIC]
    return ndcg_B


def _gain(
    dataset: Dataset, split: Split, base: RunConfig, best: Tables, text: ItemText | None, judge: Cases
) -> PairedDifference:
    """Hold the best settings against the defaults on cases that had no part in choosing them."""
    config = replace(RunConfig.resolve(base.model_name, dataset, best), encoder=base.encoder)
    found, default = (_ndcg(_fit(dataset, split, one, text), dataset, one, judge) for one in (config, base))
    return paired_difference(found, default)


def _merged(settings: Tables, options: Mapping[str, Any]) -> Tables:
    tables = {table: dict(values) for table, values in settings.items()}
    for name, value in options.items():
        table, _, option = name.partition(".")
        tables.setdefault(table, {})[option] = value
    return tables


def _plain(trial: optuna.trial.FrozenTrial) -> Trial:
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    complete = trial.state == optuna.trial.TrialState.COMPLETE
    return Trial(trial.number, dict(trial.params), trial.value if complete else None, round(seconds, 2))
