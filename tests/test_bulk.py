import json

import polars as pl
import pytest

from recloom.bulk import FINISHED, Asked, answer_part, parts_of, write_lists
from recloom.errors import ConfigError, DataError
from recloom.recommender import Recommender


@pytest.fixture
def model(dataset_of, tmp_path):
    log = [f"u{user},{(user + step) % 9},{1_700_000_000 + step}" for user in range(25) for step in range(4)]
    Recommender.fit(dataset_of(log), "item-knn").save(tmp_path / "model")
    return tmp_path / "model"


def lists_in(folder):
    return pl.read_parquet(folder / "part-*.parquet")


def test_parts_hold_the_lists_of_everybody_in_order(model, tmp_path):
    written = write_lists(Asked(model=str(model), k=3, queries_of_a_part=7), tmp_path / "lists")
    recommender = Recommender.load(model)
    users = recommender.dataset.users.ids
    expected = [
        (user, item.rank, item.item_id, item.score)
        for user, ranked in zip(users, recommender.recommend_users(users, k=3), strict=True)
        for item in ranked.items
    ]
    table = lists_in(tmp_path / "lists")
    assert [row[:3] for row in table.rows()] == [row[:3] for row in expected]
    assert table["score"].to_list() == pytest.approx([row[3] for row in expected])
    assert (written.queries, written.lists) == (25, len(expected))
    record = json.loads((tmp_path / "lists" / FINISHED).read_text())
    assert record["parts"] == [f"part-{number:05}.parquet" for number in range(4)]


def test_an_interrupted_run_keeps_what_it_finished(model, tmp_path):
    asked = Asked(model=str(model), queries_of_a_part=7)

    def interrupted(parts, asked, out):
        recommender = asked.load()
        yield answer_part(parts[2], recommender, asked, out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lists(asked, tmp_path / "lists", interrupted)
    assert not (tmp_path / "lists" / FINISHED).exists()
    kept = (tmp_path / "lists" / "part-00002.parquet").stat().st_mtime_ns
    total = write_lists(asked, tmp_path / "lists")
    assert (tmp_path / "lists" / "part-00002.parquet").stat().st_mtime_ns == kept
    assert total == write_lists(asked, tmp_path / "again")
    assert lists_in(tmp_path / "lists").equals(lists_in(tmp_path / "again"))


def test_lists_of_other_questions_are_not_mixed(model, tmp_path):
    write_lists(Asked(model=str(model), k=3), tmp_path / "lists")
    with pytest.raises(ConfigError, match="holds lists of another model or other questions; choose another folder"):
        write_lists(Asked(model=str(model), k=4), tmp_path / "lists")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds something else than lists"):
        write_lists(Asked(model=str(model)), tmp_path / "other")


@pytest.mark.parametrize("items", ["items", "items/a.csv", "items/*.csv"])
def test_lists_with_another_catalogue_are_of_another_run(model, tmp_path, items):
    (tmp_path / "items").mkdir()
    catalogue = tmp_path / "items" / "a.csv"
    catalogue.write_text("item_id,title\n0,none\n")
    asked = Asked(model=str(model), items=str(tmp_path / items))
    before = asked.facts()
    assert asked.facts() == before
    catalogue.write_text("item_id,title\n1,one\n")
    assert asked.facts() != before


def test_parts_of_a_file_are_its_lines(model, tmp_path):
    path = tmp_path / "queries.jsonl"
    lines = [json.dumps({"query_id": f"q{n}", "history": [str(n % 9), "nowhere"] if n else []}) for n in range(10)]
    path.write_text("\n".join([*lines[:4], "", *lines[4:]]) + "\n")
    asked = Asked(model=str(model), histories=str(path), queries_of_a_part=4)
    assert [(part.number, part.first) for part in parts_of(asked)] == [(0, 1), (1, 5), (2, 9)]
    written = write_lists(asked, tmp_path / "lists")
    assert (written.queries, written.unknown_items, written.popular) == (10, 9, 1)
    assert lists_in(tmp_path / "lists")["query_id"].unique(maintain_order=True).to_list() == [
        f"q{n}" for n in range(10)
    ]
    path.write_text("\n".join([*lines[:6], "not a query", *lines[6:]]))
    with pytest.raises(DataError, match=r"line 7 of .*queries.jsonl is not a query"):
        write_lists(asked, tmp_path / "other")
