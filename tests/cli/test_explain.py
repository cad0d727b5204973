"""`recloom explain`, and what `recloom recommend --explain` adds to a list."""

import json

import polars as pl
import pytest


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RECLOOM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_lists_in_files_say_why(run, shop, tmp_path, suffix):
    out = tmp_path / f"lists.{suffix}"
    options = ("--history", "0001,0002", "--k", "3", "--explain", "--language", "zh", "--out", out)
    assert run("recommend", shop / "weave", *options)[0] == 0
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[suffix]
    table = read(out)
    assert table.columns == ["query_id", "rank", "item_id", "score", "because", "reasons"]
    assert all(said.endswith("。") for said in table["because"])
    reasons = table["reasons"][0]
    first = json.loads(reasons)[0] if suffix == "csv" else reasons[0]
    assert first["kind"] == "history"
    assert first["contribution"] > 0


def test_a_list_on_the_screen_says_why(run, shop):
    code, printed, _ = run("recommend", shop / "weave", "--history", "0001,0002", "--k", "2", "--explain")
    assert code == 0
    assert "why" in printed
    assert "Because you " in printed


def test_explain_shows_every_interaction_part_and_word_and_writes_it_down(run, shop, tmp_path):
    out = tmp_path / "why.json"
    code, printed, _ = run("explain", shop / "weave", "0005", "--history", "0001,0002", "--json", out)
    assert code == 0
    for words in ("without this interaction", "the score is the sum of", "without this word of its text"):
        assert words in printed
    told = json.loads(out.read_text())
    assert told["item_id"] == "0005"
    assert {reason["kind"] for reason in told["reasons"]} >= {"history", "id", "text", "word"}
    code, printed, _ = run("explain", shop / "weave", "--user", "u001", "--no-words")
    assert code == 0
    assert "without this word" not in printed


def test_an_empty_history_is_explained_by_popularity(run, shop):
    code, printed, _ = run("explain", shop / "weave", "--history", "")
    assert code == 0
    assert "popularity is the only reason" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("explain", "MODEL", "nothing", "--history", "0001"), "item 'nothing' is not in the catalogue"),
        (("explain", "MODEL", "0001"), "say for whom"),
        (("explain", "MODEL", "0001", "--user", "nobody"), "user 'nobody' is not among"),
        (("explain", "MODEL", "0001", "--history", "0001", "--language", "fr"), "no sentences in the language 'fr'"),
        (("recommend", "MODEL", "--history", "0001", "--writer", "smollm2"), "--writer phrases what --explain says"),
        (("recommend", "MODEL", "--history", "0001", "--explain", "--writer", "x"), "unknown writer 'x'"),
        (("recommend", "MODEL", "--history", "0001", "--rerank", "x"), "unknown writer 'x'"),
    ],
)
def test_mistakes_are_one_sentence(run, shop, words, sentence):
    code, _, said = run(*(shop / "weave" if word == "MODEL" else word for word in words))
    assert code == 2
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said


def test_a_writer_that_is_down_leaves_the_lists_as_they_are(run, shop, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    options = ("--history", "0001,0002", "--k", "2", "--explain")
    plain = run("recommend", shop / "weave", *options)[1]
    code, printed, said = run(
        "recommend", shop / "weave", *options, "--writer", "openai:small", "--rerank", "openai:small"
    )
    assert code == 0
    assert printed == plain
    assert "2 reasons kept the template's sentence" in said
    assert "a list kept its order" in " ".join(said.split())
