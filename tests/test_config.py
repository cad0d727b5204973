import pytest

from recloom.config import build, parse_settings, read_run_file, to_table
from recloom.errors import ConfigError
from recloom.models import MODELS
from recloom.training import TrainingConfig


def test_settings_become_tables_of_typed_values():
    settings = ["training.epochs=20", "model.network=lstm", "split.everything=true", "training.learning_rate = 1e-3"]
    assert parse_settings(settings) == {
        "training": {"epochs": 20, "learning_rate": 1e-3},
        "model": {"network": "lstm"},
        "split": {"everything": True},
    }


@pytest.mark.parametrize("setting", ["epochs=20", "training.epochs", "=3", "training.=3"])
def test_a_setting_of_another_form_is_refused(setting):
    with pytest.raises(ConfigError, match=r"not of the form table.option=value"):
        parse_settings([setting])


def test_an_unknown_option_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown option training.epoch; did you mean epochs\?"):
        build(TrainingConfig, "training", {"epoch": 3}, {})


@pytest.mark.parametrize(
    ("value", "wanted"), [("many", "a whole number"), (2.5, "a whole number"), (True, "a whole number")]
)
def test_a_value_of_the_wrong_kind_says_what_is_wanted(value, wanted):
    with pytest.raises(ConfigError, match=f"training.epochs is .*; it has to be {wanted}"):
        build(TrainingConfig, "training", {"epochs": value}, {})


def test_what_the_user_sets_wins_over_what_the_data_suggests():
    config = build(MODELS["weave"].Config, "model", {"max_length": 7}, {"max_length": 30, "dropout": 0.5})
    assert (config.max_length, config.dropout) == (7, 0.5)


def test_a_config_survives_its_table():
    config = TrainingConfig(budget=60.0, seed=3)
    assert build(TrainingConfig, "training", to_table(config), {}) == config


def test_a_run_file_that_is_missing_or_no_toml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_run_file(tmp_path / "run.toml")
    (tmp_path / "run.toml").write_text("[model\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_run_file(tmp_path / "run.toml")
