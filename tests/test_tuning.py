import numpy as np
import optuna
import pytest

from recloom import Recommender
from recloom.dataset import SplitConfig, split_dataset
from recloom.errors import ConfigError, TrainingError
from recloom.fitting import fit_model
from recloom.models import MODELS, Span, TrainingData
from recloom.models.classic import ItemKNN
from recloom.models.weave import Weave
from recloom.run_config import RunConfig
from recloom.tuning import _halves, _ndcg, tune

NO_TEXT = {"encoder": {"name": "none"}}
SMALL_WEAVE = {
    "encoder": {"name": "none"},
    "model": {"embedding_dim": 16, "hidden_dim": 16, "network": "gru", "warm_start": False},
    "training": {"epochs": 1},
}


@pytest.fixture
def walks(dataset_of):
    """People who mostly take one thing after the other, so that what was taken last says most."""
    rng = np.random.default_rng(0)
    log = []
    for user in range(60):
        item = int(rng.integers(20))
        for time in np.sort(rng.integers(10_000_000, size=12)).tolist():
            item = (item + 1) % 20 if rng.random() < 0.8 else int(rng.integers(20))
            log.append(f"u{user:02},i{item:02},{time + 1}")
    return dataset_of(log)


def test_tuning_never_finds_less_than_the_defaults_and_its_best_can_be_fitted(walks):
    tuning = tune(walks, "item-knn", settings=NO_TEXT, trials=4)
    values = [trial.value for trial in tuning.trials]
    assert len(values) == 4
    assert tuning.best == max([tuning.default, *values]) > tuning.default  # the cycle wants a short memory
    best = tuning.trials[int(np.argmax(values))].settings
    assert set(best) == set(ItemKNN.search_space)
    assert {f"model.{name}": value for name, value in tuning.settings["model"].items()} == best
    assert tuning.settings["encoder"] == {"name": "none"}
    fitted = Recommender.fit(walks, "item-knn", settings=tuning.settings)
    assert fitted.config.model.half_life == best["model.half_life"]


def test_what_it_reports_is_what_the_settings_reach_on_the_half_that_chose(walks):
    tuning = tune(walks, "item-knn", settings=NO_TEXT, trials=3)
    split = split_dataset(walks, SplitConfig())
    chooser, judge = _halves(split.validation)

    def reached(settings, cases):
        config = RunConfig.resolve("item-knn", walks, settings)
        model = ItemKNN(config.model, walks, None)
        model.count(TrainingData(walks, split.train))
        return _ndcg(model, walks, config, cases).mean()

    assert tuning.default == reached(NO_TEXT, chooser)
    assert tuning.best == reached(tuning.settings, chooser) > tuning.default
    assert tuning.gain.mean == pytest.approx(reached(tuning.settings, judge) - reached(NO_TEXT, judge))


def test_nobody_chooses_and_judges(walks):
    validation = split_dataset(walks, SplitConfig()).validation
    chooser, judge = _halves(validation)
    assert len(np.intersect1d(chooser.user_index, judge.user_index)) == 0
    assert len(chooser) + len(judge) == len(validation)
    users = [len(np.unique(half.user_index)) for half in (chooser, judge)]
    assert abs(users[0] - users[1]) <= 1


@pytest.mark.parametrize("protocol", ["temporal", "leave-one-out", "user-disjoint"])
def test_the_test_is_never_looked_at(walks, protocol):
    settings = NO_TEXT | {"split": {"protocol": protocol, "validation_fraction": 0.3}}
    split = split_dataset(walks, SplitConfig(**settings["split"]))
    known = np.union1d(split.full.positions(), split.validation.target)
    blind = walks.blinded(np.setdiff1d(np.arange(walks.num_interactions), known))
    assert (blind.item_index != walks.item_index).any()

    def searched(dataset):
        tuning = tune(dataset, "item-knn", settings=settings, trials=3)
        return tuning.settings, tuning.default, tuning.gain, [(t.settings, t.value) for t in tuning.trials]

    assert searched(blind) == searched(walks)


# Going on, stopping


def test_a_later_call_goes_on_where_the_first_one_was(walks, tmp_path, monkeypatch):
    first = tune(walks, "item-knn", settings=NO_TEXT, trials=4, folder=tmp_path / "kept")
    fits = []
    count = ItemKNN.count
    monkeypatch.setattr(ItemKNN, "count", lambda self, data: (fits.append(1), count(self, data))[1])
    more = tune(walks, "item-knn", settings=NO_TEXT, trials=6, folder=tmp_path / "kept")
    assert len(fits) == 2 + 2  # two trials, and two fits to judge the best by
    assert more.trials[:4] == first.trials
    assert [trial.number for trial in more.trials] == list(range(6))
    at_once = tune(walks, "item-knn", settings=NO_TEXT, trials=6)
    assert [trial.settings for trial in more.trials] == [trial.settings for trial in at_once.trials]
    assert more.default == first.default
    assert len(tune(walks, "item-knn", settings=NO_TEXT, trials=3, folder=tmp_path / "kept").trials) == 6


def test_trials_of_other_settings_are_not_gone_on_with(walks, tmp_path):
    """What is fixed to its default value is still fixed: no earlier trial may move it."""
    tune(walks, "item-knn", settings=NO_TEXT, trials=3, folder=tmp_path)
    usual = {"model": {"half_life": ItemKNN.Config().half_life}}
    for fixed in (usual, {"split": {"validation_fraction": 0.2}}):
        assert len(tune(walks, "item-knn", settings=NO_TEXT | fixed, trials=1, folder=tmp_path).trials) == 1
    tuning = tune(walks, "item-knn", settings=NO_TEXT | usual, trials=8, folder=tmp_path)
    assert tuning.best > tuning.default  # so that something was chosen
    assert tuning.settings["model"]["half_life"] == usual["model"]["half_life"]


def test_a_spent_budget_ends_the_search(walks):
    assert tune(walks, "item-knn", settings=NO_TEXT, trials=100, budget=1e-9).trials == []
    tuning = tune(walks, "item-knn", settings=NO_TEXT, trials=10_000, budget=0.2)
    assert 0 < len(tuning.trials) < 10_000


@pytest.mark.parametrize("trials", [0, 1])
def test_where_no_trial_is_better_the_defaults_are_best(walks, trials):
    tuning = tune(walks, "item-knn", settings=NO_TEXT, trials=trials)
    assert all(trial.value < tuning.default for trial in tuning.trials)
    assert (tuning.settings, tuning.best, tuning.gain.mean, tuning.is_real) == (NO_TEXT, tuning.default, 0, False)


def test_ctrl_c_ends_the_search_and_not_only_a_training(walks, monkeypatch):
    def interrupted(self, histories):
        raise KeyboardInterrupt

    monkeypatch.setattr(Weave, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(walks, "weave", settings=SMALL_WEAVE, trials=2)


def test_a_trial_that_breaks_down_is_passed_over(walks, monkeypatch):
    count = ItemKNN.count

    def sometimes(self, data):
        if self.config.neighbours != ItemKNN.Config().neighbours and self.config.half_life > 3:
            raise TrainingError("the loss is nan")
        count(self, data)

    monkeypatch.setattr(ItemKNN, "count", sometimes)
    tuning = tune(walks, "item-knn", settings=NO_TEXT, trials=6)
    failed = [trial for trial in tuning.trials if trial.value is None]
    assert 0 < len(failed) < 6
    assert all(trial.settings["model.half_life"] > 3 for trial in failed)
    assert tuning.best >= tuning.default


# What cannot be tuned


def test_a_model_with_nothing_to_tune_is_refused(walks):
    for model, settings in (
        ("popular", {}),
        ("markov", {}),
        ("ease", {"model": {"regularization": 10.0}}),
    ):
        with pytest.raises(ConfigError, match=f"{model} has nothing to tune that is not set already"):
            tune(walks, model, settings=NO_TEXT | settings)


def test_too_few_people_to_tune_by_are_refused(dataset_of):
    with pytest.raises(ConfigError, match="too few validation cases to tune by"):
        tune(dataset_of([f"a,i{step},{step + 1}" for step in range(20)]), "item-knn", settings=NO_TEXT)


@pytest.mark.parametrize("model", [name for name in MODELS if MODELS[name].search_space])
def test_every_search_space_names_options_and_holds_values_they_can_have(walks, model):
    for name, values in MODELS[model].search_space.items():
        table, _, option = name.partition(".")
        for value in (values.low, values.high) if isinstance(values, Span) else values:
            config = RunConfig.resolve(model, walks, {table: {option: value}})
            assert getattr(getattr(config, table), option) == value


# Models that learn by steps


def test_a_trained_model_is_tuned_on_the_training_part_alone(walks, monkeypatch):
    learned, stopped_by = [], []
    chooser, _ = _halves(split_dataset(walks, SplitConfig()).validation)

    def watched(dataset, split, config, text, **options):
        result, model, refit = fit_model(dataset, split, config, text, **options)
        learned.append((refit, config.training.learning_rate))
        stopped_by.append(split.validation.target.tolist())
        return result, model, refit

    monkeypatch.setattr("recloom.tuning.fit_model", watched)
    tuning = tune(walks, "weave", settings=SMALL_WEAVE, trials=2)
    assert len(tuning.trials) == 2
    assert all(trial.value is not None for trial in tuning.trials)
    assert {refit for refit, _ in learned} == {False}
    assert stopped_by == [chooser.target.tolist()] * 5  # the half that judges does not even say when to stop
    assert [rate for _, rate in learned[1:3]] == [t.settings["training.learning_rate"] for t in tuning.trials]
    assert not {"model.network", "model.embedding_dim"} & set(tuning.trials[0].settings)  # they were set


def test_a_trial_that_falls_behind_is_cut_short(walks, monkeypatch):
    class AfterTwoEpochs(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and trial.last_step == 2

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: AfterTwoEpochs())
    epochs = []
    prepare, loss = Weave.prepare, Weave.loss
    monkeypatch.setattr(Weave, "prepare", lambda self, data: (epochs.append(0), prepare(self, data))[1])

    def counted(self, histories):
        epochs[-1] += 1
        return loss(self, histories)

    monkeypatch.setattr(Weave, "loss", counted)
    settings = SMALL_WEAVE | {"training": {"epochs": 5, "patience": 5, "batch_size": 100_000}}
    tuning = tune(walks, "weave", settings=settings, trials=3)
    assert [trial.value is None for trial in tuning.trials] == [False, True, False]
    assert epochs[1:4] == [5, 2, 5]  # after the defaults
