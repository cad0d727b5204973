"""`join` and `pretrain` at the prompt, and `fit --pretrained`."""

import shutil

import pytest

from recloom import Dataset, Recommender
from recloom.files import write_checksums

SMALL = ["--set", "model.embedding_dim=16", "--set", "model.hidden_dim=16", "--set", "model.text_dim=16"]


@pytest.fixture
def pretrained(shop, tmp_path, run):
    shutil.copytree(shop / "dataset", tmp_path / "again")
    code, out, err = run(
        *("pretrain", shop / "dataset", tmp_path / "again", "--out", tmp_path / "pretrained", "--encoder", "hashing"),
        *(*SMALL, "--set", "training.epochs=2"),
    )
    assert code == 0, err
    assert "the mean over those left out" in out
    assert "MB). Next: recloom fit DATASET --pretrained" in out
    return tmp_path / "pretrained"


def test_a_pretrained_model_recommends_before_anything_is_learned(shop, pretrained, run, tmp_path):
    out = tmp_path / "model"
    code, printed, err = run(
        "fit", shop / "dataset", "--out", out, "--pretrained", pretrained, "--set", "training.epochs=0"
    )
    assert code == 0, err
    assert "weave fitted in" in printed
    model = Recommender.load(out)
    assert model.config.encoder.name == "hashing"
    assert not model.model.towers[0].items.ids.weight.any()
    assert run("recommend", out, "--history", "0001,0002", "--k", 3)[0] == 0


def test_another_encoder_is_one_sentence_and_the_model_there_stays(shop, pretrained, run, tmp_path):
    model = shutil.copytree(shop / "weave", tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    config = pretrained / "config.toml"
    config.write_text(config.read_text().replace("hashing:1", "hashing:0"))
    write_checksums(pretrained)
    code, _, err = run("fit", shop / "dataset", "--out", model, "--pretrained", pretrained, "--encoder", "hashing")
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("recloom: the pretrained model")
    assert "leave the encoder out, or pretrain with this one" in err
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert run("recommend", model, "--user", "u001")[0] == 0


def test_joining_writes_one_dataset(shop, run, tmp_path):
    shutil.copytree(shop / "dataset", tmp_path / "again")
    code, out, err = run("join", shop / "dataset", tmp_path / "again", "--out", tmp_path / "both", "--same-people")
    assert code == 0, err
    assert "of 120 users with 80 items of dataset, again." in out
    assert "120 users were met again in a further dataset." in out
    joined = Dataset.open(tmp_path / "both")
    assert joined.items.ids[0] == "dataset:0000"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["join", "{shop}/dataset", "--out", "{tmp}/x"], "joining takes two datasets or more"),
        (["join", "{shop}/dataset", "{shop}/dataset", "--out", "{tmp}/x"], "two of the folders are called 'dataset'"),
        (["join", "{shop}/dataset", "{tmp}/no", "--out", "{tmp}/x"], "no dataset at"),
        (["pretrain", "{tmp}/no", "--out", "{tmp}/x"], "no dataset at"),
        (["pretrain", "{shop}/dataset", "--out", "{shop}"], "holds something that is not a pretrained model"),
        (
            ["pretrain", "{shop}/dataset", "--out", "{tmp}/x", "--set", "model.request=true"],
            "model.request is fixed at",
        ),
        (["fit", "{shop}/dataset", "--out", "{tmp}/x", "--pretrained", "{shop}/weave"], "is not a pretrained model"),
        (["fit", "{shop}/dataset", "--out", "{tmp}/x", "--pretrained", "{tmp}/no"], "is not a pretrained model"),
    ],
)
def test_mistakes_are_one_sentence(shop, run, tmp_path, words, message):
    code, _, err = run(*(word.format(shop=shop, tmp=tmp_path) for word in words))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (tmp_path / "x").exists()
