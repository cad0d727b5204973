"""What is learned from texts of one shop holds in another, which sells other things under the same rule."""

import json
import shutil
import tomllib

import numpy as np
import pytest

from recloom import Dataset, Recommender
from recloom.encoders.hashing import HashingEncoder
from recloom.errors import ArtifactError, ConfigError
from recloom.files import write_checksums
from recloom.lifecycle.forgetting import forget
from recloom.models import Pretrained
from recloom.pretraining import SHARES, pretrain

COLOURS = ["crimson", "azure", "emerald", "golden"]
THINGS = {
    "garage": [
        "spanner",
        "jack",
        "wrench",
        "drill",
        "hammer",
        "chisel",
        "pliers",
        "saw",
        "vice",
        "file",
        "awl",
        "rasp",
    ],
    "kitchen": ["ladle", "bowl", "kettle", "skillet", "whisk", "grater", "sieve", "mug", "plate", "fork", "wok", "urn"],
    "garden": ["spade", "hose", "trowel", "rake", "shears", "barrow", "hoe", "dibber", "pot", "cane", "net", "fleece"],
}
SMALL = {"embedding_dim": 32, "hidden_dim": 32, "text_dim": 32, "max_length": 10}
ENCODER = {"name": "hashing"}


def shop(folder, name: str, users: int, ahead: int = 1, staying: float = 0.0) -> Dataset:
    """Make a shop where whoever took something of a colour takes something of the next colour.

    Args:
        folder: Where to.
        name: Of the shop.
        users: How many.
        ahead: How much further on the next colour is.
        staying: How often it is the same colour instead.
    """
    rng = np.random.default_rng(len(name))
    folder.mkdir(exist_ok=True, parents=True)
    rows = ["user_id,item_id,timestamp,behavior"]
    for user in range(users):
        colour = int(rng.integers(4))
        for step in range(9):
            thing = int(rng.integers(12))
            rows.append(f"{name}-u{user},{name}-{colour}-{thing},{1_000_000 + 9_000 * user + 60 * step},view")
            colour = colour if staying and rng.random() < staying else (colour + ahead) % 4
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    items = [
        f"{name}-{number}-{place},{colour} {thing}"
        for number, colour in enumerate(COLOURS)
        for place, thing in enumerate(THINGS[name])
    ]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *items]) + "\n")
    return Dataset.from_files(folder / "events.csv", folder / "items.csv", out=folder / name)


@pytest.fixture(scope="module")
def shops(tmp_path_factory) -> dict[str, Dataset]:
    folder = tmp_path_factory.mktemp("shops")
    return {name: shop(folder / name, name, 150) for name in THINGS}


@pytest.fixture(scope="module")
def pretrained(shops, tmp_path_factory):
    """What two of the shops teach."""
    out = tmp_path_factory.mktemp("pretrained") / "weights"
    settings = {"model": SMALL, "encoder": ENCODER, "training": {"epochs": 15, "batch_size": 256}}
    pretrain({name: shops[name] for name in ("garage", "kitchen")}, out, settings=settings)
    return out


def fit(dataset: Dataset, model: str = "weave", training=None, **more) -> Recommender:
    return Recommender.fit(
        dataset,
        model,
        settings={"split": {"protocol": "leave-one-out"}, "encoder": ENCODER, "training": training or {}, **more}
        if model == "weave"
        else {"split": {"protocol": "leave-one-out"}, "encoder": ENCODER},
    )


def ndcg(recommender: Recommender) -> float:
    return float(recommender.evaluate([10]).values["NDCG@10"].mean())


def test_the_rule_holds_in_a_shop_that_was_never_seen(shops, pretrained):
    zero_shot = fit(shops["garden"], training={"pretrained": str(pretrained), "epochs": 0}, model="weave")
    by_chance, by_likeness = (ndcg(fit(shops["garden"], model)) for model in ("random", "content"))
    assert zero_shot.run.curve == []
    assert ndcg(zero_shot) > 1.5 * max(by_chance, by_likeness)


def test_a_habit_of_one_shop_is_not_carried_over(tmp_path):
    """Where people of each shop follow a rule of their own, a shop that is left out is better off without it."""
    shops = {name: shop(tmp_path / name, name, 150, ahead, staying=0.6) for ahead, name in enumerate(THINGS, start=1)}
    settings = {"model": SMALL, "encoder": ENCODER, "training": {"epochs": 8, "batch_size": 256}}
    done = pretrain(shops, tmp_path / "weights", settings=settings)
    assert list(done.left_out) == list(THINGS)
    assert done.network_share < 1
    means = {share: np.mean([tried.ndcg_at_10[share] for tried in done.left_out.values()]) for share in SHARES}
    assert means[done.network_share] == max(means.values())
    weights = Pretrained.load(tmp_path / "weights").tensors["from_network.weight"]
    assert weights.any() == (done.network_share > 0)
    record = json.loads((tmp_path / "weights" / "metrics.json").read_text())
    assert record["network_share"] == done.network_share
    assert record["left_out"]["garage"]["best_epoch"] == done.left_out["garage"].best_epoch


def test_a_rule_of_all_shops_is(shops, pretrained):
    record = json.loads((pretrained / "metrics.json").read_text())
    assert record["network_share"] > 0
    assert all(tried["ndcg_at_10"]["1.0"] > 0.2 for tried in record["left_out"].values())


def test_ten_people_are_enough_to_keep_what_was_learned_elsewhere(shops, pretrained):
    ten = shops["garden"].of_users(np.arange(1, 11))
    begun = fit(ten, training={"pretrained": str(pretrained)})
    whole = Recommender(shops["garden"], begun.model, begun.config, begun.text, begun.counts_I, begun.run)
    alone = fit(ten)
    alone = Recommender(shops["garden"], alone.model, alone.config, alone.text, alone.counts_I, alone.run)
    assert ndcg(whole) > 1.2 * ndcg(alone)


def test_training_that_makes_it_worse_is_not_kept(shops, pretrained):
    spoilt = fit(
        shops["garden"], training={"pretrained": str(pretrained), "epochs": 1, "learning_rate": 3.0, "averaging": 0.0}
    )
    still = fit(shops["garden"], training={"pretrained": str(pretrained), "epochs": 0})
    assert spoilt.run.best_epoch is None
    assert ndcg(spoilt) == pytest.approx(ndcg(still), abs=1e-6)


def test_a_fitted_model_says_what_it_began_with_and_needs_it_no_more(shops, pretrained, tmp_path):
    copy = shutil.copytree(pretrained, tmp_path / "pretrained")
    fitted = fit(shops["garden"], training={"pretrained": str(copy), "epochs": 0})
    fitted.save(tmp_path / "model")
    shutil.rmtree(copy)
    loaded = Recommender.load(tmp_path / "model")
    assert loaded.run.lineage == {"pretrained": Pretrained.load(pretrained).digest}
    before, after = (one.recommend(history=["garden-0-1", "garden-1-2"], k=5) for one in (fitted, loaded))
    assert [item.item_id for item in before.items] == [item.item_id for item in after.items]


def test_nobody_is_removed_when_what_training_begins_with_is_gone(shops, pretrained, tmp_path):
    elsewhere = shutil.copytree(pretrained, tmp_path / "elsewhere")
    fit(shops["garden"], training={"pretrained": str(elsewhere), "epochs": 0}).save(tmp_path / "model")
    shutil.rmtree(elsewhere)
    user = shops["garden"].users.ids[0]
    with pytest.raises(ArtifactError, match="is not a pretrained model"):
        forget(tmp_path / "model", [user])
    assert user in Recommender.load(tmp_path / "model").dataset.users


def test_nothing_of_the_shops_is_in_the_folder(pretrained, shops):
    written = b"".join(path.read_bytes() for path in pretrained.iterdir())
    for name in ("garage", "kitchen"):
        items = shops[name].item_table
        for text in [*items["item_id"], *items["title"], *THINGS[name], *shops[name].users.ids]:
            assert text.encode() not in written
    assert sum(path.stat().st_size for path in pretrained.iterdir()) < 3_000_000
    sizes = {tuple(tensor.shape) for tensor in Pretrained.load(pretrained).tensors.values()}
    assert not any(size[0] in (48, 49, 97) for size in sizes)  # no row for each item


def test_the_record_names_the_sets_the_encoder_and_the_versions(pretrained, shops):
    record = json.loads((pretrained / "metrics.json").read_text())
    assert record["datasets"]["garage"]["fingerprint"] == shops["garage"].fingerprint
    assert record["datasets"]["kitchen"]["items"] == 48
    assert record["encoder"].startswith("hashing")
    assert {"torch", "recloom"} <= set(record["versions"])
    config = tomllib.loads((pretrained / "config.toml").read_text())
    assert config["model"]["embedding_dim"] == 32


def test_behaviours_and_times_go_by_what_they_mean(pretrained, shops, tmp_path):
    log = (tmp_path / "log.csv", "user_id,item_id,timestamp,behavior\na,1,100,buy\na,2,200,view\nb,1,300,view\n")
    log[0].write_text(log[1])
    (tmp_path / "items.csv").write_text("item_id,title\n1,golden net\n2,azure pot\n")
    dataset = Dataset.from_files(log[0], tmp_path / "items.csv")
    fitted = fit(dataset, training={"pretrained": str(pretrained), "epochs": 0})
    table, known = fitted.model.towers[0].circumstances, Pretrained.load(pretrained)
    row_of = {meaning: row for row, meaning in enumerate(known.circumstances)}
    rows = {(kind, str(value)): row for (kind, value), row in table._row_of.items()}
    for meaning in (("behavior", "view"), ("gap", "5"), ("hour", "3")):
        assert (table.table.weight[rows[meaning]] == known.tensors["circumstances"][row_of[meaning]]).all()
    assert not table.table.weight[rows["behavior", "buy"]].any()
    assert table.table.weight[rows["behavior", "view"]].any()


def test_the_encoder_is_that_of_the_pretrained_model_unless_one_was_chosen(shops, pretrained, monkeypatch):
    settings = {"split": {"protocol": "leave-one-out"}, "training": {"pretrained": str(pretrained), "epochs": 0}}
    assert Recommender.fit(shops["garden"], settings=settings).config.encoder.name == "hashing"
    other = HashingEncoder()
    other.fingerprint = "another one"
    monkeypatch.setattr("recloom.fitting.load_encoder", lambda name, **_: other)
    with pytest.raises(ConfigError, match="was made with the encoder hashing, whose vectors are not those of"):
        Recommender.fit(shops["garden"], settings={**settings, "encoder": {"name": "hashing"}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"embedding_dim": 64, "hidden_dim": 32, "text_dim": 32}}, "model.embedding_dim is 64, and that of"),
        ({"model": {"network": "sasrec"}}, "model.network is sasrec, and that of the pretrained model gru"),
        ({"model": {"fusion": "id"}}, "model.fusion is 'id', which has no place for what was pretrained"),
        ({"encoder": {"name": "none"}}, "knows items by their text, but the encoder is none"),
        ({"privacy": {"epsilon": 8.0}}, "training.pretrained would let people's data in"),
    ],
)
def test_settings_that_do_not_go_with_it_are_one_sentence(shops, pretrained, settings, message):
    with pytest.raises(ConfigError, match=message):
        Recommender.fit(
            shops["garden"], settings={"encoder": ENCODER, **settings, "training": {"pretrained": str(pretrained)}}
        )


@pytest.mark.parametrize("name", ["two-tower", "popular"])
def test_other_models_cannot_begin_with_it(shops, pretrained, name):
    with pytest.raises(ConfigError, match=f"{name} cannot begin with a pretrained model; weave can"):
        Recommender.fit(
            shops["garden"],
            name,
            settings={"training": {"pretrained": str(pretrained)}, "encoder": ENCODER},
        )


def test_a_catalogue_without_text_is_refused(shops, pretrained, tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\na,1,100\na,2,200\nb,1,300\n")
    with pytest.raises(ConfigError, match="but the catalogue has no text columns; leave it out"):
        fit(Dataset.from_files(tmp_path / "log.csv"), training={"pretrained": str(pretrained)})
    with pytest.raises(ConfigError, match="the catalogue of bare has no text columns"):
        pretrain({"bare": Dataset.from_files(tmp_path / "log.csv")}, tmp_path / "out", settings={"encoder": ENCODER})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "flipped", "foreign", "newer", "garbage"])
def test_a_folder_that_is_no_pretrained_model_is_one_sentence(shops, pretrained, tmp_path, damage):
    folder = shutil.copytree(pretrained, tmp_path / "pretrained")
    if damage == "missing":
        (folder / "pretrained.safetensors").unlink()
    elif damage == "flipped":
        content = bytearray((folder / "pretrained.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "pretrained.safetensors").write_bytes(content)
    elif damage == "foreign":
        fit(shops["garden"], training={"epochs": 1}).save(tmp_path / "model")
        folder = tmp_path / "model"
    elif damage == "newer":
        text = (folder / "config.toml").read_text().replace("format = 2", "format = 9")
        (folder / "config.toml").write_text(text)
        write_checksums(folder)
    else:
        (folder / "metrics.json").write_text("{")
        write_checksums(folder)
    message = {
        "missing": "it lacks pretrained.safetensors; make one with: recloom pretrain",
        "flipped": "is damaged: pretrained.safetensors is not what was written",
        "foreign": "is not a pretrained model: it lacks pretrained.safetensors",
        "newer": "of format 9",
        "garbage": "is damaged",
    }[damage]
    with pytest.raises(ArtifactError, match=message):
        fit(shops["garden"], training={"pretrained": str(folder)})


def test_what_would_not_carry_over_cannot_be_set(shops, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.fusion is fixed at text in pretraining"):
        pretrain({"garage": shops["garage"]}, tmp_path / "out", settings={"model": {"fusion": "sum"}})
    with pytest.raises(ConfigError, match=r"unknown table \[split\]"):
        pretrain({"garage": shops["garage"]}, tmp_path / "out", settings={"split": {"protocol": "temporal"}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match="holds something that is not a pretrained model"):
        pretrain({"garage": shops["garage"]}, tmp_path / "mine")
