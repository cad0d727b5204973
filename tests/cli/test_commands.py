import json
import tomllib

import polars as pl
import pytest

from recloom import Recommender
from recloom.cli.console import parse_duration
from recloom.errors import ConfigError


def test_prepare_counts_what_it_read_and_what_it_left_out(run, tmp_path):
    (tmp_path / "log.csv").write_text("buyer,sku,when\na,1,2024-01-01\na,2,\nb,1,2024-01-02\nb,1,2024-01-02\n")
    mapped = ["--column", "user_id=buyer", "--column", "item_id=sku", "--column", "timestamp=when"]
    code, out, err = run("prepare", tmp_path / "log.csv", "--out", tmp_path / "dataset", *mapped)
    assert code == 0
    assert "buyer = user_id" in out
    assert "Next: recloom fit" in out
    assert "left out: 1 rows, missing timestamp" in err
    assert "left out: 1 rows, exact duplicate" in err
    assert "UTC was assumed" in err
    assert "2 interactions are too few" in err
    rejects = pl.read_csv(tmp_path / "dataset" / "rejects.csv")
    assert rejects.select("line", "reason").rows() == [(3, "missing timestamp"), (5, "exact duplicate")]
    assert json.loads((tmp_path / "dataset" / "report.json").read_text())["interactions"]["rows_read"] == 4


def test_fit_writes_a_model_with_its_resolved_config_and_record(run, shop, tmp_path):
    options = [
        "--protocol",
        "leave-one-out",
        "--encoder",
        "hashing",
        "--budget",
        "60s",
        "--seed",
        "7",
        "--set",
        "training.epochs=2",
    ]
    code, out, _ = run("fit", shop / "dataset", "--out", tmp_path / "model", *options)
    assert code == 0
    assert "weave fitted in" in out
    config = tomllib.loads((tmp_path / "model" / "config.toml").read_text())
    assert config["training"]["seed"] == 7
    assert config["encoder"]["name"] == "hashing"
    record = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert len(record["curve"]) == 2
    assert record["versions"]["recloom"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "SHA256SUMS",
        "config.toml",
        "dataset.h5",
        "item_text.safetensors",
        "item_vectors.safetensors",
        "metrics.json",
        "model.safetensors",
        "optimizer.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # no checkpoint is left


def test_a_models_own_config_is_a_run_file(run, shop, tmp_path):
    code, _, _ = run("fit", shop / "dataset", "--out", tmp_path / "again", "--config", shop / "weave" / "config.toml")
    assert code == 0
    first, again = Recommender.load(shop / "weave"), Recommender.load(tmp_path / "again")
    assert again.config == first.config
    # The same run twice: equal up to the rounding of sums that threads share.
    assert [item.score for item in again.recommend("u001").items] == pytest.approx(
        [item.score for item in first.recommend("u001").items], abs=1e-3
    )


def test_fit_all_serves_but_cannot_be_evaluated(run, shop, tmp_path):
    code, out, _ = run("fit", shop / "dataset", "--out", tmp_path / "m", "--model", "popular", "--all")
    assert (code, "Next: recloom recommend" in out) == (0, True)
    code, _, err = run("evaluate", tmp_path / "m")
    assert code == 2
    assert "fitted with --all" in err


def test_evaluate_prints_a_table_and_writes_json(run, shop, tmp_path):
    code, out, _ = run("evaluate", shop / "weave", "--k", "5,10", "--json", tmp_path / "metrics.json")
    assert code == 0
    assert "120 users asked" in out
    table = json.loads((tmp_path / "metrics.json").read_text())
    assert table["protocol"] == "leave-one-out"
    assert 0 <= table["metrics"]["NDCG@5"]["mean"] <= table["metrics"]["NDCG@10"]["mean"] <= 1


def test_evaluate_refuses_another_protocol(run, shop):
    code, _, err = run("evaluate", shop / "weave", "--protocol", "temporal")
    assert code == 2
    assert "was fitted under leave-one-out and has seen what temporal would ask" in err


@pytest.mark.parametrize(
    ("whom", "queries"),
    [
        (["--user", "u001"], 1),
        (["--history", "0001,0002"], 1),
        (["--histories", "queries.jsonl"], 3),
        (["--all-users"], 120),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_recommend_answers_all_four_ways_in_all_three_formats(run, shop, tmp_path, whom, queries, suffix):
    whom = [shop / word if word == "queries.jsonl" else word for word in whom]
    out = tmp_path / f"lists.{suffix}"
    assert run("recommend", shop / "weave", *whom, "--k", 4, "--out", out)[0] == 0
    read = {"csv": lambda p: pl.read_csv(p, infer_schema=False), "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}
    lists = read[suffix](out)
    assert lists.columns == ["query_id", "rank", "item_id", "score"]
    assert len(lists) == 4 * queries
    assert lists["item_id"].str.len_chars().unique().to_list() == [4]  # as the log spells them: 0001


def test_a_brand_new_history_gets_titles_and_unknown_items_are_counted(run, shop):
    code, out, err = run("recommend", shop / "weave", "--history", "0001,never,0002", "--k", 3)
    assert code == 0
    assert out.count("│") >= 3 * 5
    assert any(word in out for word in ("lamp", "chair", "table", "knife", "pan", "book"))
    assert "1 items of the histories are not in the catalogue and were skipped" in err


def test_an_empty_history_gets_the_popular_list_and_says_so(run, shop):
    _, empty, err = run("recommend", shop / "weave", "--history", "", "--k", 3)
    assert "1 histories were empty; they got what is most popular" in err
    popular = Recommender.load(shop / "popular").recommend(history=[], k=3)
    assert popular.served_by == "popular"
    assert all(item.item_id in empty for item in popular.items)


def test_a_new_item_is_recommended_from_its_text_alone(run, shop, tmp_path):
    titles = dict(pl.read_csv(shop / "items.csv", infer_schema=False).select("item_id", "title").rows())
    (tmp_path / "new.csv").write_text(f"item_id,title\nbrand-new,{titles['0001']}\n")
    code, out, _ = run("recommend", shop / "content", "--history", "0001", "--items", tmp_path / "new.csv", "--k", 2)
    assert code == 0
    assert "brand-new" in out


def test_similar_shows_neighbours_and_not_the_item_itself(run, shop):
    code, out, _ = run("similar", shop / "content", "0001", "--k", 5)
    assert code == 0
    assert out.startswith("Nearest to 0001 blue chair")
    assert "│ 0001" not in out


def test_datasets_lists_what_can_be_fetched_with_its_terms(run):
    code, out, _ = run("datasets")
    assert code == 0
    assert "MovieLens" in out
    assert "redistribution" in out
    code, _, err = run("datasets", "get", "ml-100g", "--out", "x")
    assert code == 2
    assert "unknown data set 'ml-100g'; there are: ml-100k" in err


def test_doctor_tells_of_versions_encoders_and_processor(run):
    _, out, _ = run("doctor")
    for word in ("torch", "encoder minilm", "encoder hashing", "processor", "free disk"):
        assert word in out


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


def test_a_duration_of_another_form_is_refused():
    with pytest.raises(ConfigError, match=r"write it as 90s, 10m or 1\.5h"):
        parse_duration("soon")
