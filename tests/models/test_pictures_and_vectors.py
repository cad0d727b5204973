"""What there is beside text, from the catalogue to lists: what a picture tells, what its absence costs."""

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recloom import Dataset, Recommender
from recloom.compression.folding import fold_text
from recloom.compression.pruning import prune
from recloom.compression.quantizing import quantize
from recloom.errors import ArtifactError, ConfigError
from recloom.events import read_interactions, read_items
from recloom.fitting import portable, read_catalogue
from recloom.models import MODELS
from recloom.models.item_vectors import ItemVectors
from recloom.run_config import RunConfig
from tests.conftest import NEW_ITEMS, write_coloured_shop

QUICK = {
    "model": {"embedding_dim": 16, "hidden_dim": 16, "max_length": 8},
    "training": {"epochs": 6, "device": "cpu"},
    "encoder": {"name": "hashing"},
    "split": {"everything": True},
}
RED_HISTORY, NEW_RED = ["i00", "i03", "i06"], "new-red"


def settings(**tables):
    return {name: {**QUICK.get(name, {}), **tables.get(name, {})} for name in {**QUICK, **tables}}


@pytest.fixture
def shop(tmp_path, mean_colour):
    return Dataset.from_files(*write_coloured_shop(tmp_path / "shop"), out=tmp_path / "dataset")


def test_pictures_travel_to_the_machines_of_a_cluster(shop, tmp_path):
    cloudpickle = pytest.importorskip("ray.cloudpickle", reason="the extra ray is not installed")
    config = RunConfig.resolve("weave", shop, settings(encoder={"name": "hashing", "image": "efficientnet"}))
    text, _, chosen, _ = read_catalogue(shop, config, None)
    there = cloudpickle.loads(cloudpickle.dumps(portable(text, chosen)))
    assert [other.name for other in there.others] == ["image"]
    for ours, theirs in zip(text.all_vectors, there.all_vectors, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    new = [str(tmp_path / "shop" / "new-red.png")]
    np.testing.assert_array_equal(there.others[0].read(new)[0], text.others[0].read(new)[0])
    np.testing.assert_array_equal(there.read(["a word"]), text.read(["a word"]))


def scores(recommender, history, items=tuple(NEW_ITEMS)):
    found = recommender.recommend(history=history, k=len(recommender.dataset.items))
    by_item = {place.item_id: place.score for place in found.items}
    return [by_item[item] for item in items]


@pytest.mark.parametrize("fusion", ["sum", "text", "gated", "concat", "separate", "init", "likeness"])
def test_pictures_place_items_that_nobody_took(shop, fusion):
    fitted = Recommender.fit(shop, settings=settings(model={"fusion": fusion}))
    assert fitted.text.others[0].name == "image"
    assert fitted.run.modalities == {"image": "mean colour of efficientnet Preparation" + MEAN_COLOUR}
    for number in range(3):
        history = [f"i{3 * step + number:02}" for step in range(3)]
        assert int(np.argmax(scores(fitted, history))) == number


@pytest.mark.parametrize("fusion", ["sum", "gated", "concat", "separate", "likeness"])
def test_reasons_tell_a_picture_from_the_text(shop, fusion):
    fitted = Recommender.fit(shop, settings=settings(model={"fusion": fusion}))
    told = fitted.explain(NEW_RED, history=RED_HISTORY)
    parts = {reason.name or reason.kind: reason.contribution for reason in told.reasons if reason.kind != "history"}
    names = {"id", "text", "image", "popularity", "any item"} & set(parts)
    assert sum(parts[name] for name in names) == pytest.approx(told.score, rel=1e-5)
    # All titles say the same, so what places it is the picture.
    assert parts["image"] > 5 * abs(parts["text"]) > 0 or parts["text"] == 0 < parts["image"]


MEAN_COLOUR = "(size=8, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))"


def test_text_alone_cannot_tell_them_apart(shop):
    fitted = Recommender.fit(shop, settings=settings(encoder={"name": "hashing", "image": "none"}))
    assert fitted.text.others == ()
    right = [
        int(np.argmax(scores(fitted, [f"i{3 * step + number:02}" for step in range(3)]))) == number
        for number in range(3)
    ]
    assert not all(right)


@pytest.mark.parametrize("model", ["two-tower", "content"])
def test_other_models_that_read_text_look_at_pictures_too(shop, model):
    options = {name: table for name, table in settings().items() if name != "model"}
    fitted = Recommender.fit(shop, model, settings=options)
    assert int(np.argmax(scores(fitted, RED_HISTORY))) == 0


def test_models_that_do_not_look_at_pictures_leave_them_alone(shop, mean_colour):
    fitted = Recommender.fit(shop, "popular", settings={"split": {"everything": True}})
    assert fitted.text is None
    assert mean_colour.asked == 0
    assert not MODELS["lm-fusion"].uses_modalities


@pytest.mark.parametrize("model", ["weave", "content"])
def test_pictures_do_without_any_text(tmp_path, mean_colour, model):
    dataset = Dataset.from_files(*write_coloured_shop(tmp_path / "shop", with_titles=False))
    options = settings() if model == "weave" else {n: t for n, t in settings().items() if n != "model"}
    fitted = Recommender.fit(dataset, model, settings=options)
    assert fitted.config.encoder.name == "none"
    assert int(np.argmax(scores(fitted, RED_HISTORY))) == 0
    fitted.save(tmp_path / "model")
    assert scores(Recommender.load(tmp_path / "model"), RED_HISTORY) == scores(fitted, RED_HISTORY)


def test_without_pictures_a_fit_is_what_it_was(tmp_path, shop, mean_colour):
    """The weights, names and values, are the same whether the catalogue names pictures that are left aside or none."""
    table = pl.read_csv(tmp_path / "shop/items.csv").drop("image")
    table.write_csv(tmp_path / "shop/plain.csv")
    plain = Dataset.from_files(tmp_path / "shop/events.csv", tmp_path / "shop/plain.csv")
    first = Recommender.fit(plain, settings=settings()).model.state_dict()
    aside = settings(encoder={"name": "hashing", "image": "none"}, model={**QUICK["model"], "modality_dropout": 0.5})
    second = Recommender.fit(shop, settings=aside).model.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any("others" in name for name in first)


def test_what_cannot_be_used_is_counted_and_the_rest_goes_on(tmp_path, shop, mean_colour):
    (tmp_path / "shop/i00.png").unlink()
    (tmp_path / "shop/i01.png").write_bytes((tmp_path / "shop/i01.png").read_bytes()[:45])
    fitted = Recommender.fit(shop, settings=settings())
    assert fitted.run.warnings[0].startswith("2 pictures could not be used, and their items count as without one: ")
    assert "1 no such file" in fitted.run.warnings[0]
    assert "1 damaged" in fitted.run.warnings[0]
    assert not fitted.text.others[0].vectors_IE[1:3].any()
    assert fitted.text.others[0].vectors_IE[3:].any(axis=1).all()
    assert int(np.argmax(scores(fitted, ["i03", "i06", "i09"]))) == 0


def test_where_no_picture_can_be_used_text_alone_is_read(tmp_path, shop, mean_colour):
    for path in (tmp_path / "shop").glob("*.png"):
        path.unlink()
    fitted = Recommender.fit(shop, settings=settings())
    assert fitted.text.others == ()
    assert "27 no such file" in fitted.run.warnings[0]


def test_a_saved_model_needs_the_pictures_no_more(tmp_path, shop, mean_colour):
    fitted = Recommender.fit(shop, settings=settings())
    fitted.save(tmp_path / "model")
    expected = scores(fitted, RED_HISTORY)
    shutil.rmtree(tmp_path / "shop")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    asked = mean_colour.asked
    loaded = Recommender.load(tmp_path / "moved")
    assert scores(loaded, RED_HISTORY) == expected
    assert np.array_equal(loaded.text.others[0].vectors_IE, fitted.text.others[0].vectors_IE)
    # Nor when it learns, changes a title, loses somebody, or is fitted again.
    more = read_interactions(written(tmp_path / "more.csv", "user_id,item_id,timestamp\nu00,i03,2000000\n"))
    renamed = pl.DataFrame({"item_id": [NEW_RED], "title": ["another name"], "image": [cell_of(loaded, NEW_RED)]})
    for after in (
        loaded.learn(more),
        loaded.with_items(renamed),
        loaded.without_users(["u01"]),
        loaded.without_users(["u01"]).fit_again(loaded.config),
    ):
        row = after.dataset.items.index_of(NEW_RED)
        assert np.array_equal(after.text.others[0].vectors_IE[row], fitted.text.others[0].vectors_IE[row])
    assert mean_colour.asked == asked


def written(path, content):
    path.write_text(content)
    return path


def cell_of(recommender, item):
    return recommender.dataset.item_table.filter(pl.col("item_id") == item)["image"].item()


def test_new_items_come_with_their_pictures(tmp_path, shop, mean_colour):
    Recommender.fit(shop, settings=settings()).save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    catalogue = "item_id,title,image\nlater-blue,thing,new-blue.png\nlater-red,thing,new-red.png\nbare,thing,\n"
    path = written(tmp_path / "shop/later.csv", catalogue)
    later = ("later-red", "later-blue", "bare")
    grown = loaded.with_items(path)
    assert int(np.argmax(scores(grown, RED_HISTORY, later))) == 0
    learned = loaded.learn(None, read_items(path))
    assert int(np.argmax(scores(learned, RED_HISTORY, later))) == 0
    assert learned.run.warnings == []
    path.write_text(catalogue.replace("new-red.png", "gone.png"))
    assert "1 no such file" in " ".join(loaded.learn(None, read_items(path)).run.warnings)
    with pytest.warns(UserWarning, match="1 pictures could not be used"):
        loaded.with_items(path)


def test_another_encoder_than_the_model_was_fitted_with_is_refused(tmp_path, shop, mean_colour, monkeypatch):
    Recommender.fit(shop, settings=settings()).save(tmp_path / "model")
    monkeypatch.setattr("recloom.fitting.load_image_encoder", lambda name: mean_colour.load("other"))
    loaded = Recommender.load(tmp_path / "model")
    assert len(scores(loaded, RED_HISTORY)) == 3
    path = written(tmp_path / "shop/later.csv", "item_id,title,image\nlater,thing,new-red.png\n")
    with pytest.raises(ArtifactError, match="is not the one that the model was fitted with"):
        loaded.with_items(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_vectors_of_the_users_own_do_what_pictures_do(tmp_path, suffix):
    log, items = write_coloured_shop(tmp_path)
    table = pl.read_csv(items).drop("image")
    colour = [number % 3 for number in range(24)] + [0, 1, 2]
    vectors = [[float(one == number) + 0.01 * row for one in range(3)] for row, number in enumerate(colour)]
    if suffix == "csv":
        spelled = [" ".join(map(str, vector)) for vector in vectors]
        spelled[0], spelled[1], spelled[2] = str(vectors[0]), "1 2", "loud"
        table.with_columns(pl.Series("vector:sound", spelled)).write_csv(tmp_path / "heard.csv")
    else:
        table = table.with_columns(pl.Series("vector:sound", vectors, dtype=pl.Array(pl.Float64, 3)))
        if suffix == "parquet":
            table.write_parquet(tmp_path / "heard.parquet")
        else:
            table.with_columns(pl.col("vector:sound").cast(pl.List(pl.Float64))).write_ndjson(tmp_path / "heard.jsonl")
    dataset = Dataset.from_files(log, tmp_path / f"heard.{suffix}")
    fitted = Recommender.fit(dataset, settings=settings())
    assert [other.name for other in fitted.text.others] == ["vector:sound"]
    assert fitted.text.others[0].vectors_IE[4] == pytest.approx(np.array(vectors[3], dtype=np.float32))
    history = ["i03", "i06", "i09"]
    assert int(np.argmax(scores(fitted, history))) == 0
    if suffix == "csv":
        assert fitted.run.warnings[0] == (
            "2 vectors of vector:sound could not be used, and their items count as without one: 1 2 numbers, not 3,"
            " 1 not a list of numbers"
        )
    aside = Recommender.fit(dataset, settings=settings(encoder={"name": "hashing", "vectors": False}))
    assert aside.text.others == ()
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    new = pl.DataFrame({"item_id": ["x", "y"], "title": ["thing", "thing"], "vector:sound": ["0 1 0", "1 0 0"]})
    assert int(np.argmax(scores(loaded.with_items(new), history, ("x", "y")))) == 1


def test_vectors_say_nothing_as_text_or_category(tmp_path):
    from recloom.encoders import item_texts
    from recloom.evaluation.categories import category_column

    log, items = write_coloured_shop(tmp_path)
    pl.read_csv(items).with_columns(pl.lit("1 2").alias("vector:a")).drop("image", "title").write_csv(
        tmp_path / "v.csv"
    )
    dataset = Dataset.from_files(log, tmp_path / "v.csv")
    assert set(item_texts(dataset.item_table)) == {""}
    assert category_column(dataset) is None


def items_of(fusion, others, modality_dropout=0.0):
    torch.manual_seed(0)
    text = torch.eye(6)[[0, 0, 1, 2, 3, 1]]
    text[0] = 0
    made = ItemVectors(5, 8, fusion, text, 4, 0.0, others, modality_dropout)
    made.prepare(torch.tensor([False, True, True, True, True, False]))
    return made.eval()


PICTURES = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.float32)
SOUNDS = torch.tensor([[0, 0], [1, 2], [3, 1], [2, 2], [0, 0], [1, 1]], dtype=torch.float32)


@pytest.mark.parametrize("fusion", ["text", "sum", "gated", "concat", "init"])
def test_a_start_is_predicted_by_all_there_is_together(fusion):
    start = torch.randn(6, 8)
    start[[0, 5]] = 0
    made = items_of(fusion, [PICTURES, SOUNDS])
    made.start_from(start)
    if fusion == "sum":
        assert torch.allclose(made(torch.arange(1, 5)), start[1:5], atol=1e-5)
    new = made(torch.tensor([5]))[0]
    assert new.abs().sum() > 0
    assert torch.isfinite(new).all()


def test_an_item_without_a_picture_has_nothing_of_it():
    made = items_of("sum", [PICTURES, SOUNDS])
    with torch.no_grad():
        before = made(torch.tensor([3, 1]))
        made.others[0].to_vector.weight += 1.0
        after = made(torch.tensor([3, 1]))
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert torch.allclose(made.others[0].whitening.mean_E, PICTURES[[1, 2, 4]].mean(dim=0))  # of those that have one


def test_modality_dropout_hides_one_or_the_other_in_training_only():
    made = items_of("text", [PICTURES], modality_dropout=0.5)
    rows = torch.full((4_000,), 1)
    whole = made(rows)
    assert torch.allclose(whole, whole[:1].expand_as(whole))
    text = made.from_text(made.text_IF[1])
    picture = made.others[0].to_vector(made.others_IF[1])
    made.train()
    seen = made(rows)
    shares = [
        torch.isclose(seen, one, atol=1e-6).all(dim=1).float().mean().item()
        for one in (text + picture, text, picture, torch.zeros_like(text))
    ]
    assert shares == pytest.approx([0.25] * 4, abs=0.05)


def test_embeddings_of_text_alone_leave_pictures_as_they_are():
    made = items_of("text", [PICTURES, SOUNDS])
    before = made(torch.tensor([1]))
    row = torch.tensor([1])
    made.read(row, made.embeddings(row))
    assert torch.allclose(made(row), before)
    made.read(row, torch.zeros(1, 6))
    assert torch.allclose(made(row), before - made.from_text(items_of("text", [PICTURES, SOUNDS]).text_IF[row]))
    made.read(row, torch.zeros(1, 6 + 3 + 2))
    assert not made(row).any()


@pytest.mark.parametrize("fusion", ["sum", "text", "concat", "init"])
@pytest.mark.parametrize("text_dim", [2, 256])
def test_folding_pictures_into_the_vectors_changes_no_score(tmp_path, shop, fusion, text_dim):
    """With 256 features the two maps of each part become one; with 2 they stay apart."""
    fitted = Recommender.fit(shop, settings=settings(model={"fusion": fusion, "text_dim": text_dim}))
    folded = fold_text(fitted)
    assert not any(vectors_IE.any() for vectors_IE in folded.text.all_vectors)
    everything = tuple(shop.items.ids)[3:24]
    assert scores(folded, RED_HISTORY, everything[6:]) == pytest.approx(
        scores(fitted, RED_HISTORY, everything[6:]), abs=1e-3
    )
    path = written(tmp_path / "shop/later.csv", "item_id,title,image\nb,thing,new-blue.png\nr,thing,new-red.png\n")
    before, after = (scores(one.with_items(path), RED_HISTORY, ("r", "b")) for one in (fitted, folded))
    assert after == pytest.approx(before, abs=1e-3)


def test_coded_and_pruned_models_place_new_items_by_their_pictures(tmp_path, shop):
    fitted = Recommender.fit(shop, settings=settings())
    path = written(tmp_path / "shop/later.csv", "item_id,title,image\nb,thing,new-blue.png\nr,thing,new-red.png\n")
    coded = quantize(fold_text(fitted))
    assert int(np.argmax(scores(coded.with_items(path), RED_HISTORY, ("b", "r")))) == 1
    coded.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert scores(loaded, RED_HISTORY) == pytest.approx(scores(coded, RED_HISTORY), abs=1e-3)
    assert int(np.argmax(scores(loaded.with_items(path), RED_HISTORY, ("b", "r")))) == 1
    pruned = prune(fitted)
    config = replace(fitted.config, model=pruned.config)
    smaller = Recommender(fitted.dataset, pruned, config, fitted.text, fitted.counts_I, fitted.run)
    assert int(np.argmax(scores(smaller, RED_HISTORY))) == 0


def test_shards_look_at_pictures(shop):
    fitted = Recommender.fit(shop, settings=settings(privacy={"shards": 2}))
    assert int(np.argmax(scores(fitted, RED_HISTORY))) == 0


def test_a_fit_is_alike_to_the_last_bit_when_it_is_done_again(shop):
    first, second = (Recommender.fit(shop, settings=settings()).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_options_are_checked(shop):
    with pytest.raises(ConfigError, match=r"model.modality_dropout is 1.0; it has to lie in \[0, 1\)"):
        Recommender.fit(shop, settings=settings(model={"modality_dropout": 1.0}))
    with pytest.raises(ConfigError, match=r"encoder.vectors is 'no'; it has to be true or false"):
        Recommender.fit(shop, settings=settings(encoder={"vectors": "no"}))
