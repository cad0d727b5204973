"""`--profile small`: what it sets, and what memory it is about."""

import json
import subprocess
import sys
import textwrap
import tomllib

import pytest

from recloom.cli import main
from recloom.errors import ConfigError
from recloom.run_config import PROFILES, profile_settings


def type_in(monkeypatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["recloom", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


@pytest.fixture
def dataset(cycle_dataset, tmp_path):
    (tmp_path / "dataset").mkdir()
    cycle_dataset.copy_to(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_a_profile_sets_what_the_caller_does_not(dataset, tmp_path, monkeypatch):
    run_file = tmp_path / "run.toml"
    run_file.write_text("[model]\nhidden_dim = 24\n")
    quick = ["--encoder", "none", "--set", "training.epochs=1", "--set", "model.embedding_dim=16"]
    words = ["fit", dataset, "--out", tmp_path / "model", "--profile", "small", "--config", run_file, *quick]
    assert type_in(monkeypatch, *words) == 0
    config = tomllib.loads((tmp_path / "model" / "config.toml").read_text())
    assert (config["model"]["embedding_dim"], config["model"]["hidden_dim"]) == (16, 24)
    assert config["model"]["text_dim"] == PROFILES["small"]["model"]["text_dim"]
    assert config["training"]["validation_cases"] == 1_000
    assert config["encoder"] | {"max_tokens": 64, "name": "none"} == config["encoder"]


def test_a_profile_leaves_out_what_a_model_does_not_have():
    assert profile_settings("small", "popular")["model"] == {}
    assert "embedding_dim" in profile_settings("small", "weave")["model"]
    with pytest.raises(ConfigError, match=r"unknown profile 'smal'; did you mean small\?"):
        profile_settings("smal", "weave")
    with pytest.raises(ConfigError, match=r"unknown model 'weav'; did you mean weave\?"):
        profile_settings("small", "weav")


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read as Linux tells them")
def test_weighing_popularity_takes_little_memory_beside_the_scores():
    program = """
        import json, resource, torch
        from recloom.models.popularity_prior import REQUEST_FEATURES, PopularityPrior

        score_BC = torch.rand(1_000, 20_000)
        prior, target_B = PopularityPrior(20_000), torch.arange(1_000) + 1
        prior._what_is_known = lambda asked: torch.ones(len(asked), REQUEST_FEATURES)
        prior.fit(score_BC[:2], torch.arange(20_000), target_B[:2], range(2), 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        prior.fit(score_BC, torch.arange(20_000), target_B, range(1_000), 1)
        print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / score_BC.nbytes))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < 1.5  # all cases together took 4 times what the scores take
