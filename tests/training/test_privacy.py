import json
import sys

import numpy as np
import pytest
import torch

from recloom import Recommender
from recloom.cli import main
from recloom.compression.teaching import fine_tune
from recloom.dataset import Segments
from recloom.errors import ConfigError, MissingExtraError
from recloom.lifecycle.forgetting import forget
from recloom.models import MODELS, TrainingData
from recloom.training import PrivacyConfig, TrainingConfig, train_privately
from recloom.training.privacy import COUNTS_NOISE, ORDERS, epsilon_spent, noise_needed, usual_delta
from recloom.training.private_training import People, add_noise, noised_popularity, summed_gradients
from tests.conftest import fake_text

SMALL = {"embedding_dim": 8, "hidden_dim": 8, "text_dim": 8}
PRIVATE = {
    "model": SMALL,
    "privacy": {"epsilon": 8.0, "seed": 3},
    "training": {"epochs": 4},
    "encoder": {"name": "none"},
}
RDPAccountant = pytest.importorskip("opacus.accountants", reason="the extra privacy is not installed").RDPAccountant


def private_model(dataset, **options):
    weave = MODELS["weave"]
    torch.manual_seed(0)
    options = {**SMALL, "max_length": 50, **weave.private_options, **options}
    model = weave(weave.Config(**options), dataset, fake_text(dataset))
    model.prepare_privately()
    return model


def data_of(dataset):
    return TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:]))


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def log_of(histories):
    return [f"{user},{item},{1_000_000 + step}" for user, items in histories.items() for step, item in enumerate(items)]


OTHERS = {f"u{n}": [f"i{(n + step) % 8}" for step in range(6 + n)] for n in range(6)}
CATALOGUE = [f"i{item},film number{item}" for item in range(8)]


@pytest.mark.parametrize("victim", [["i1", "i2"], ["i7", "i0"] * 40, ["i3"] * 120])
@pytest.mark.parametrize("fusion", ["text", "sum"])
def test_nobody_changes_a_step_by_more_than_the_clip_norm(dataset_of, victim, fusion):
    clip_norm = 0.05
    with_victim = dataset_of(log_of(OTHERS | {"u3x": victim}), CATALOGUE)
    without_victim = dataset_of(log_of(OTHERS), CATALOGUE)
    sums = []
    for dataset in (with_victim, without_victim):
        model = private_model(dataset, fusion=fusion, dropout=0.3, num_negatives=3)
        people = People(data_of(dataset), model.max_length, None)
        sums.append(flat(summed_gradients(model.train(), people, range(len(people)), clip_norm, seed=5)))
    # The others' part is the same up to rounding, dropout and negatives included: the difference is the victim's.
    assert float((sums[0] - sums[1]).norm()) == pytest.approx(clip_norm, rel=1e-3)


def test_replacing_somebody_changes_a_step_by_at_most_twice_the_clip_norm(dataset_of):
    sums = []
    for victim in (["i1", "i2"], ["i7", "i0"] * 40):
        dataset = dataset_of(log_of(OTHERS | {"u3x": victim}), CATALOGUE)
        model = private_model(dataset)
        people = People(data_of(dataset), model.max_length, None)
        sums.append(flat(summed_gradients(model, people, range(len(people)), 0.05, seed=5)))
    assert 0.01 < float((sums[0] - sums[1]).norm()) <= 0.1 * (1 + 1e-3)


def test_a_short_gradient_is_left_as_it_is(dataset_of):
    dataset = dataset_of(log_of(OTHERS), CATALOGUE)
    model = private_model(dataset)
    people = People(data_of(dataset), model.max_length, None)
    losses = people.loss(model, 0, 5) + people.loss(model, 1, 5)
    plain = torch.autograd.grad(losses, list(model.parameters()), allow_unused=True, materialize_grads=True)
    together = flat(summed_gradients(model, people, [0, 1], 1e6, seed=5))
    assert float(together.norm()) > 0
    assert torch.allclose(together, flat(plain), atol=1e-6)


def test_a_gradient_that_is_no_number_is_left_out(dataset_of, monkeypatch):
    dataset = dataset_of(log_of(OTHERS), CATALOGUE)
    model = private_model(dataset)
    people = People(data_of(dataset), model.max_length, None)
    sane = flat(summed_gradients(model, people, [0, 1, 3], 0.05, seed=5))
    loss = model.loss
    monkeypatch.setattr(model, "loss", lambda h: loss(h) * (torch.inf if h.user_index_B[0] == 3 else 1))
    assert torch.equal(flat(summed_gradients(model, people, [0, 1, 2, 3], 0.05, seed=5)), sane)


def test_noise_has_the_deviation_it_should():
    total = [torch.zeros(300, 200), torch.ones(40_000)]
    add_noise(total, 2.5, np.random.default_rng(0))
    assert float(total[0].std()) == pytest.approx(2.5, rel=0.02)
    assert float(total[1].std()) == pytest.approx(2.5, rel=0.02)
    assert float(total[1].mean()) == pytest.approx(1, abs=0.05)


def test_training_adds_the_noise_that_the_account_speaks_of(cycle_dataset, monkeypatch):
    model, deviations = private_model(cycle_dataset), []
    monkeypatch.setattr(
        "recloom.training.private_training.add_noise", lambda total, deviation, rng: deviations.append(deviation)
    )
    privacy = PrivacyConfig(epsilon=3.0, clip_norm=0.5, sample_rate=0.5, seed=0)
    _, release = train_privately(model, data_of(cycle_dataset), TrainingConfig(epochs=4), privacy)
    assert deviations == [release.record.noise_multiplier * 0.5] * 8
    assert release.record.steps == 8


def test_everybody_is_drawn_as_often_as_the_account_says(cycle_dataset, monkeypatch):
    model, drawn = private_model(cycle_dataset), []
    monkeypatch.setattr(
        "recloom.training.private_training.summed_gradients",
        lambda model, people, chosen, clip_norm, seed: (
            drawn.append(chosen) or [torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
        ),
    )
    privacy = PrivacyConfig(epsilon=3.0, sample_rate=0.3, seed=0)
    train_privately(model, data_of(cycle_dataset), TrainingConfig(epochs=120), privacy)
    assert len(drawn) == 400
    sizes = np.array([len(chosen) for chosen in drawn])
    assert sizes.mean() == pytest.approx(0.3 * 40, rel=0.05)
    # Poisson sampling: the size is binomial, not fixed.
    assert sizes.std() == pytest.approx((40 * 0.3 * 0.7) ** 0.5, rel=0.15)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-5), (2.0, 1e-3), (8.0, 1e-5), (32.0, 1e-5)])
def test_no_more_is_spent_than_was_asked(epsilon, delta):
    noise = noise_needed(epsilon, delta, 0.2, 100)
    spent = epsilon_spent(noise, delta, 0.2, 100)
    assert 0.9 * epsilon < spent <= epsilon
    assert epsilon_spent(noise / 1.1, delta, 0.2, 100) > epsilon


def test_the_account_covers_steps_and_popularity():
    # With everybody in each step, all are plain Gaussian mechanisms, whose Renyi divergences a / (2 s^2) add up to
    # that of one with less noise. By the textbook (Mironov 2017) that is r + 2 sqrt(r log(1 / delta)), and a bit less
    # by the bound in use today.
    noise, delta, steps = 3.0, 1e-5, 2
    rate = (steps + 1 / COUNTS_NOISE**2) / (2 * noise**2)
    one = RDPAccountant()
    one.history = [((2 * rate) ** -0.5, 1.0, 1)]
    spent = epsilon_spent(noise, delta, 1.0, steps)
    assert spent == pytest.approx(one.get_epsilon(delta=delta, alphas=ORDERS), rel=1e-6)
    assert 0.8 < spent / (rate + 2 * (rate * np.log(1 / delta)) ** 0.5) <= 1


def test_an_epsilon_that_no_noise_keeps_is_refused():
    with pytest.raises(ConfigError, match=r"privacy.epsilon is 1e-06 .* which no noise is enough for over 100 steps"):
        noise_needed(1e-6, 1e-9, 0.2, 100)


def test_delta_is_below_one_over_the_people():
    assert usual_delta(1_000) < 1 / 1_000


def test_the_same_seed_gives_the_same_model_and_another_seed_another(cycle_dataset):
    def weights(seed):
        settings = PRIVATE | {"privacy": {"epsilon": 8.0, "seed": seed}}
        return Recommender.fit(cycle_dataset, settings=settings).model.state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_without_a_seed_no_two_fits_are_alike(cycle_dataset):
    settings = PRIVATE | {"privacy": {"epsilon": 8.0}}
    one, other = (Recommender.fit(cycle_dataset, settings=settings) for _ in range(2))
    assert one.run.privacy["secret_noise"]
    assert not one.run.warnings
    assert "seed" not in one.config.to_toml()["privacy"]
    weights, theirs = one.model.state_dict(), other.model.state_dict()
    assert not torch.equal(weights["towers.0.to_query.weight"], theirs["towers.0.to_query.weight"])


def test_a_given_seed_is_warned_of(cycle_dataset):
    fitted = Recommender.fit(cycle_dataset, settings=PRIVATE)
    assert not fitted.run.privacy["secret_noise"]
    assert any("whoever knows it can take the noise off" in warning for warning in fitted.run.warnings)


def test_a_delta_that_promises_nothing_is_warned_of(cycle_dataset):
    settings = PRIVATE | {"privacy": {"epsilon": 8.0, "delta": 0.1}, "training": {"epochs": 1}}
    fitted = Recommender.fit(cycle_dataset, settings=settings)
    assert fitted.run.privacy["delta"] == 0.1
    assert any("privacy.delta is 0.1, more than one over the" in warning for warning in fitted.run.warnings)


def test_a_circle_is_learned_under_little_privacy(cycle_dataset):
    # So little noise that what is left to see is whether the steps go the right way.
    settings = {
        "model": {"embedding_dim": 16, "hidden_dim": 16},
        "privacy": {"epsilon": 1e4, "seed": 0, "sample_rate": 0.5},
        "training": {"epochs": 25, "learning_rate": 1e-2, "averaging": 0.9},
        "encoder": {"name": "none"},
        "split": {"everything": True},
    }
    fitted = Recommender.fit(cycle_dataset, settings=settings)
    assert fitted.recommend(history=["i2", "i3", "i4"], k=1, include_seen=True).items[0].item_id == "i5"


def test_nothing_in_the_model_is_counted_from_people(dataset_of):
    """Whoever was there, what is not trained and not noised is the same."""
    models = []
    for victim in ({}, {"u3x": ["i7"] * 30}):
        dataset = dataset_of(log_of({name: items[:4] for name, items in OTHERS.items()} | victim), CATALOGUE)
        settings = PRIVATE | {"split": {"everything": True}, "encoder": {"name": "hashing"}}
        models.append(Recommender.fit(dataset, settings=settings))
    one, other = (dict(fitted.model.named_buffers()) for fitted in models)
    assert one.keys() == other.keys()
    assert len(one) >= 4
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert models[0].config.model == models[1].config.model
    assert models[0].config.include_seen == models[1].config.include_seen
    assert models[0].run.curve == models[1].run.curve == []
    assert models[0].run.validation_ndcg_at_10 is None


def test_popularity_is_noised_and_nobody_has_more_than_one_vote(dataset_of):
    votes = []
    for victim in ({}, {"u3x": ["i7"] * 500}, {"u3x": ["i1", "i2", "i3", "i4"]}):
        dataset = dataset_of(log_of(OTHERS | victim), CATALOGUE)
        people = People(data_of(dataset), 50, None)
        votes.append(noised_popularity(people, 0.0, np.random.default_rng(0)) / 100)
    assert np.linalg.norm(votes[1] - votes[0]) == pytest.approx(1, abs=0.02)
    assert np.linalg.norm(votes[2] - votes[0]) == pytest.approx(1, abs=0.02)
    noised = noised_popularity(people, 5.0, np.random.default_rng(0)) / 100
    assert np.abs(noised - votes[2]).max() > 1
    assert noised.min() >= 0
    assert noised[0] == 0


def test_what_was_promised_is_kept_and_printed(cycle_dataset, tmp_path, capsys, monkeypatch):
    options = ["--set", "privacy.epsilon=8", "--set", "training.epochs=2", "--set", "model.hidden_dim=8"]
    folder = tmp_path / "dataset"
    folder.mkdir()
    cycle_dataset.copy_to(folder)
    words = ["recloom", "fit", str(folder), "--out", str(tmp_path / "model"), "--encoder", "none", "--all", *options]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    record = json.loads((tmp_path / "model" / "metrics.json").read_text())["privacy"]
    assert 7 < record["epsilon"] <= 8
    assert record["people"] == 40
    assert f"private: epsilon {record['epsilon']:.2f} at delta {record['delta']:.1e}" in capsys.readouterr().out
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.config.privacy == PrivacyConfig(epsilon=8)
    assert loaded.run.privacy == record


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"warm_start": True}}, "model.warm_start is True, which would learn from counts"),
        ({"model": {"popularity": True}}, "model.popularity is True, which would learn from counts"),
        ({"model": {"sampling": "popularity"}}, "model.sampling is popularity, which would learn from counts"),
        ({"training": {"teacher": "somewhere"}}, "training.teacher would let people's data in"),
        ({"training": {"epochs": 0}}, "training.epochs is 0, and under privacy.epsilon a model begins with nothing"),
        ({"training": {"budget": 10}}, "training.budget would let people's data in"),
        ({"training": {"half_life_days": 3}}, "training.half_life_days would let people's data in"),
    ],
)
def test_other_ways_of_learning_are_refused(cycle_dataset, settings, message):
    with pytest.raises(ConfigError, match=message):
        Recommender.fit(cycle_dataset, settings={"privacy": {"epsilon": 8}, **settings})


@pytest.mark.parametrize("model", ["popular", "mf", "lm-fusion"])
def test_other_models_are_refused(cycle_dataset, model):
    with pytest.raises(ConfigError, match=f"privacy.epsilon cannot be kept by {model}; choose weave"):
        Recommender.fit(cycle_dataset, model, settings={"privacy": {"epsilon": 8}})


def test_an_encoder_that_was_adapted_on_people_is_refused(cycle_dataset, monkeypatch):
    monkeypatch.setattr("recloom.fitting.read_adaptation", lambda folder: {"dataset": cycle_dataset.fingerprint})
    with pytest.raises(ConfigError, match="the encoder hashing was adapted on what people took, without noise"):
        Recommender.fit(cycle_dataset, settings=PRIVATE | {"encoder": {"name": "hashing"}})


def test_a_table_updated_by_the_rows_in_use_is_refused(cycle_dataset, monkeypatch):
    monkeypatch.setattr("recloom.models.item_vectors.LARGE_CATALOGUE", 3)
    settings = PRIVATE | {"model": {**SMALL, "fusion": "id"}}
    with pytest.raises(ConfigError, match=r"set model.fusion=text"):
        Recommender.fit(cycle_dataset, settings=settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon": 0}, "privacy.epsilon is 0; it has to be a positive number"),
        ({"epsilon": -1.0}, "privacy.epsilon is -1.0; it has to be a positive number"),
        ({"epsilon": np.inf}, "privacy.epsilon is inf; .*leave it out for no privacy"),
        ({"epsilon": np.nan}, "privacy.epsilon is nan; it has to be a positive number"),
        ({"delta": 1.0}, "privacy.delta is 1.0; it has to lie between 0 and 1"),
        ({"clip_norm": 0.0}, "privacy.clip_norm is 0.0; it has to be positive"),
        ({"sample_rate": 0}, "privacy.sample_rate is 0; it has to lie in"),
        ({"sample_rate": 1.5}, "privacy.sample_rate is 1.5; it has to lie in"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        PrivacyConfig(**values)


def test_the_missing_extra_is_named(cycle_dataset, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "opacus"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(MissingExtraError, match=r"training with privacy.epsilon needs the extra 'privacy'"):
        Recommender.fit(cycle_dataset, settings=PRIVATE)


def test_a_private_model_does_not_go_on_learning_without_noise(cycle_dataset, tmp_path):
    fitted = Recommender.fit(cycle_dataset, settings=PRIVATE)
    more = tmp_path / "more.csv"
    more.write_text("user_id,item_id,timestamp\nu01,i3,2000000\n")
    with pytest.raises(ConfigError, match=r"an update would learn without noise; fit it again"):
        fitted.update(more)
    with pytest.raises(ConfigError, match=r"distilling or pruning it would learn without noise"):
        fine_tune(fitted, fitted.model, None)


def test_forgetting_trains_a_private_model_again_and_counts_nobody_meanwhile(cycle_dataset, tmp_path):
    fitted = Recommender.fit(cycle_dataset, settings=PRIVATE)
    fitted.save(tmp_path / "model")
    receipt, _ = forget(tmp_path / "model", ["u01"], retrain=False)
    meanwhile = Recommender.load(tmp_path / "model")
    assert receipt.weights == "carry"
    assert np.array_equal(meanwhile.counts_I, fitted.counts_I)
    before, now = fitted.model.state_dict(), meanwhile.model.state_dict()
    assert all(torch.equal(before[name], now[name]) for name in before)
    receipt, _ = forget(tmp_path / "model", [])
    again = Recommender.load(tmp_path / "model")
    assert receipt.weights == "retrained"
    assert again.run.privacy["people"] == 39
    assert again.run.privacy["epsilon"] <= 8


def test_without_epsilon_nothing_changes(cycle_dataset):
    settings = {"model": SMALL, "training": {"epochs": 1}, "encoder": {"name": "none"}}
    fitted = Recommender.fit(cycle_dataset, settings=settings)
    assert fitted.run.privacy == {}
    assert fitted.config.model.warm_start
