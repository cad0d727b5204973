"""Items that come at run time with a picture: looked at where the service may, left aside where not."""

import numpy as np
import polars as pl
import pytest

from recloom import Dataset, Recommender
from recloom.cli import update
from recloom.serving import Settings
from recloom.serving.live_model import LiveModel
from recloom.serving.pictures import served_picture
from recloom.serving.settings import ServiceConfig
from recloom.serving.store import ItemChange
from tests.conftest import write_coloured_shop
from tests.serving.helpers import ask, wait_until

RED_HISTORY = ["i00", "i03", "i06"]
QUICK = {
    "model": {"embedding_dim": 16, "hidden_dim": 16, "max_length": 8},
    "training": {"epochs": 6, "device": "cpu"},
    "encoder": {"name": "hashing"},
    "split": {"everything": True},
}


@pytest.fixture
def coloured(tmp_path, mean_colour):
    """A model folder that was fitted with pictures, and the folder of the pictures."""
    dataset = Dataset.from_files(*write_coloured_shop(tmp_path / "shop"))
    Recommender.fit(dataset, settings=QUICK).save(tmp_path / "model")
    return tmp_path / "model", tmp_path / "shop"


def scores(client, *items):
    shown = ask(client, history=RED_HISTORY, k=100)["items"]
    by_item = {place["item_id"]: place["score"] for place in shown}
    return [by_item.get(item) for item in items]


def test_a_new_item_is_placed_by_its_picture(serve, coloured):
    model, shop = coloured
    client = serve(model, pictures=str(shop))
    for item, picture in (("blue", "new-blue.png"), ("red", "new-red.png"), ("bare", "gone.png"), ("out", "../x.png")):
        assert client.put(f"/v1/items/{item}", json={"title": "thing", "image": picture}).status_code == 202
    wait_until(lambda: None not in scores(client, "blue", "red", "bare", "out"), 20)
    blue, red, bare, out = scores(client, "blue", "red", "bare", "out")
    assert red > bare > blue
    assert bare == out
    # Another title for the same picture: it is not looked at again, and may be gone.
    (shop / "new-red.png").unlink()
    client.put("/v1/items/red", json={"title": "thing", "image": "new-red.png", "price": 3})
    assert scores(client, "red")[0] == red


def test_without_a_folder_pictures_are_addresses_for_the_page(serve, coloured, mean_colour):
    model, shop = coloured
    client = serve(model)
    asked = mean_colour.asked
    for item, picture in (("red", (shop / "new-red.png").as_uri()), ("bare", "")):
        client.put(f"/v1/items/{item}", json={"title": "thing", "image": picture})
    wait_until(lambda: None not in scores(client, "red", "bare"), 20)
    red, bare = scores(client, "red", "bare")
    assert red == bare
    assert mean_colour.asked == asked


def test_what_is_known_of_a_picture_stays_when_the_title_changes(coloured, mean_colour):
    model, shop = coloured
    live = LiveModel("default", model, Settings(ServiceConfig(pictures=str(shop))), [])
    row = live.catalogue.row_of("new-red")
    before, asked = live.text.others[0].vectors_IE[row].copy(), mean_colour.asked
    columns = live.catalogue.values_of(row)
    said = live.read([ItemChange("new-red", {**columns, "title": "another"}, False, 1)])
    assert said == {row: ("another", None)}
    live.place(live.encode(said))
    assert np.array_equal(live.text.others[0].vectors_IE[row], before)
    assert mean_colour.asked == asked
    live.place(live.encode(live.read([ItemChange("new-red", {"title": "another"}, False, 2)])))
    assert not live.text.others[0].vectors_IE[row].any()


def test_a_broken_image_encoder_costs_the_picture_and_not_the_item(coloured, monkeypatch):
    from recloom.errors import MissingExtraError

    def missing(name):
        raise MissingExtraError("images", "the image encoder 'efficientnet'")

    model, shop = coloured
    monkeypatch.setattr("recloom.fitting.load_image_encoder", missing)
    live = LiveModel("default", model, Settings(ServiceConfig(pictures=str(shop))), [])
    change = ItemChange("later", {"title": "thing", "image": "new-red.png"}, False, 1)
    live.place(live.encode(live.read([change])))
    row = live.catalogue.row_of("later")
    assert live.catalogue.placed_mask[row]
    assert live.text.vectors_IE[row].any()
    assert not live.text.others[0].vectors_IE[row].any()


@pytest.mark.parametrize(
    ("cell", "is_served"),
    [
        ("a.png", True),
        ("deeper/../a.png", True),
        ("../a.png", False),
        ("/etc/a.png", False),
        ("file:///etc/a.png", False),
        ("https://x.org/a.png", False),
        ("link.png", False),
        ("a\0.png", False),
        ("", False),
    ],
)
def test_files_outside_the_folder_are_out_of_reach(tmp_path, cell, is_served):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "secret.png")
    assert bool(served_picture(cell, str(tmp_path / "in"))) == is_served
    assert served_picture(cell, "") == ""
    if is_served:
        assert served_picture((tmp_path / "in" / cell).as_uri(), str(tmp_path / "in"))


def test_an_update_from_a_services_database_finds_the_pictures_it_found(tmp_path):
    (tmp_path / "serve.toml").write_text(f'[service]\npictures = "{tmp_path}"\n')
    table = pl.DataFrame({"item_id": list("abc"), "image": ["a.png", "file:///etc/b.png", "https://x.org/c.png"]})
    found = update._with_served_pictures(table, tmp_path / "serve.toml")["image"].to_list()
    assert found == [(tmp_path / "a.png").resolve().as_uri(), "", "https://x.org/c.png"]
    assert update._with_served_pictures(table, None)["image"].to_list() == ["", "", "https://x.org/c.png"]
