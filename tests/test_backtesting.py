"""Each habit learns exactly what came before each step."""

import json
import re
from dataclasses import replace

import pytest

from recloom import Dataset, Recommender
from recloom.cli import main
from recloom.errors import ConfigError
from recloom.evaluation.significance import PairedDifference
from recloom.lifecycle.backtesting import Backtest, Course, Habit, backtest, from_json, to_json
from recloom.lifecycle.backtesting_report import write_backtest

HABITS = [Habit.parse(text) for text in ("never", "update", "update:2", "retrain", "window:8")]
SETTINGS = {"encoder": {"name": "hashing"}, "training": {"epochs": 2}}
DAY = 86_400


def circle(steps=20, users=30):
    """Everybody does one thing a day, around a circle of eight."""
    return [
        f"u{user:02},i{(user + step) % 8},{DAY * (step + 1) + user}" for user in range(users) for step in range(steps)
    ]


CATALOGUE = [f"i{item},film number{item}" for item in range(8)]


@pytest.fixture
def learned(monkeypatch):
    """The newest time that each fit and each update has seen, in order."""
    seen = []
    fit, learn = Recommender.fit.__func__, Recommender.learn

    def fitted(cls, dataset, *arguments, **named):
        seen.append(("fit", int(dataset.timestamp.min()), int(dataset.timestamp.max())))
        return fit(cls, dataset, *arguments, **named)

    def learn_on(self, log, *arguments, **named):
        seen.append(("update", int(log.table["timestamp"].min()), int(log.table["timestamp"].max())))
        return learn(self, log, *arguments, **named)

    monkeypatch.setattr(Recommender, "fit", classmethod(fitted))
    monkeypatch.setattr(Recommender, "learn", learn_on)
    return seen


def test_fits_and_updates_see_what_came_before_each_step_and_nothing_else(dataset_of, learned):
    dataset = dataset_of(circle(), CATALOGUE)
    told = []
    result = backtest(
        dataset, HABITS, settings=SETTINGS, steps=3, start=0.7, progress=lambda what, done, total: told.append(what)
    )
    before = [sorted(t for t in dataset.timestamp.tolist() if t < cut)[-1] for cut in result.starts]
    since = [sorted(t for t in dataset.timestamp.tolist() if t >= cut)[0] for cut in result.starts]
    assert learned == [
        ("fit", DAY, before[0]),  # for all but the window
        ("fit", DAY, before[0]),
        ("update", since[0], before[1]),
        ("fit", DAY, before[1]),
        ("fit", DAY, before[1]),  # the window's: the split leaves out what is older
        ("update", since[1], before[2]),
        ("update", since[0], before[2]),
        ("fit", DAY, before[2]),
        ("fit", DAY, before[2]),
    ]
    assert result.cases == [30, 30, 30]
    never, update, second, retrain, window = result.courses
    assert never.cost == 0 < update.cost
    assert [seconds > 0 for seconds in second.seconds] == [False, False, True]
    assert [seconds > 0 for seconds in retrain.seconds] == [False, True, True]
    assert len({course.ndcg_at_10[0] for course in (never, update, second, retrain)}) == 1
    assert any(what.startswith("step 2 of 3, update each step") for what in told)
    assert set(result.differences) == {"never", "update each step", "update every 2 steps", "retrain on 8 days"}
    assert window.habit.days == 8


@pytest.mark.parametrize("model", ["popular", "item-knn"])
def test_a_model_that_counts_never_sees_the_answers(dataset_of, model):
    # In each of the last two steps everybody takes something that was not there before.
    late = {8: "n1", 9: "n2"}
    log = [
        f"u{user:02},{late.get(step, f'i{(user * 3 + step) % 24:02}')},{DAY * (step + 1) + user}"
        for user in range(30)
        for step in range(10)
    ]
    habits = [Habit("never"), Habit("retrain")]
    result = backtest(dataset_of(log), habits, model=model, steps=2, start=0.8)
    assert [course.ndcg_at_10 for course in result.courses] == [[0, 0], [0, 0]]


def test_never_is_what_the_first_fit_knew_and_retraining_finds_what_is_popular_now(dataset_of):
    log = [
        f"u{user:02},{'late' if step >= 6 else f'i{step % 4}'},{DAY * (step + 1) + user}"
        for user in range(30)
        for step in range(10)
    ]
    settings = {"split": {"everything": True}}
    habits = [Habit("never"), Habit("retrain"), Habit("window", days=1.5)]
    result = backtest(dataset_of(log), habits, model="popular", settings=settings, steps=2, start=0.6)
    never, retrain, window = result.courses
    assert never.ndcg_at_10[1] < retrain.ndcg_at_10[1] <= window.ndcg_at_10[1] == 1
    assert result.differences["never"].mean < 0


@pytest.fixture
def result() -> Backtest:
    courses = [
        Course(Habit("never"), [0.1, 0.05], 0.075, [0, 0]),
        Course(Habit("update"), [0.1, 0.099], 0.0995, [0, 2.0]),
        Course(Habit("retrain"), [0.1, 0.1], 0.1, [0, 20.0]),
    ]
    return Backtest("weave", [DAY, 2 * DAY], [30, 40], 18.0, courses, {})


def test_the_cheapest_habit_that_is_good_enough_is_advised(result):
    assert result.advised.habit == Habit("update")
    assert "“update each step”" in result.advice
    assert "“retrain each step”" in result.advice
    assert result.share_of_retraining(result.advised) == 0.1


def test_the_advice_says_what_these_people_cannot_rule_out(result):
    def advice(low: float) -> str:
        difference = PairedDifference(mean=-0.0005, low=low, high=0.001, p_value=0.5, effect_size=-0.1)
        return replace(result, from_best={"update each step": difference}).advice

    assert advice(-0.005).endswith("it loses up to 5% (the end of a 95 % interval).")
    assert "rule out" not in advice(-0.002)


def test_json_and_back_is_the_same(dataset_of):
    result = backtest(dataset_of(circle(10), CATALOGUE), [Habit("never"), Habit("retrain")], model="popular", steps=2)
    assert from_json(json.loads(json.dumps(to_json(result)))) == result


@pytest.mark.parametrize("text", ["sometimes", "update:0", "update:x", "window", "window:-1", "never:2", ""])
def test_a_habit_nobody_knows_is_refused(text):
    with pytest.raises(ConfigError, match=r"habit|window"):
        Habit.parse(text)


def test_a_log_that_is_too_short_is_refused(dataset_of):
    dataset = dataset_of([f"u{user},i{item},{1_000 + item}" for user in range(4) for item in range(4)])
    with pytest.raises(ConfigError, match="too few different times for 9 steps"):
        backtest(dataset, [Habit("never")], model="popular", steps=9)
    with pytest.raises(ConfigError, match="each of them once"):
        backtest(dataset, [Habit("never")] * 2, model="popular")


def test_the_page_needs_no_network_and_escapes_names(result, tmp_path):
    write_backtest(result, tmp_path / "page.html", "<b>shop</b>")
    page = (tmp_path / "page.html").read_text()
    assert not re.findall(r"""(?:src|href|@import)\s*=?\s*["'(]*(?:https?:)?//""", page.split("<script", 1)[0])
    assert "<script src" not in page
    assert not re.findall(r"""\bimport\s*(?:\(|[^;]{0,80}\bfrom)\s*["']https?://""", page)
    assert "<b>shop</b>" not in page
    assert result.advice in page
    assert "<td>10%</td>" in page
    write_backtest(result, tmp_path / "page.md", "shop")
    assert "| update each step | 0.0995 |" in (tmp_path / "page.md").read_text()
    write_backtest(result, tmp_path / "page.json", "shop")
    assert from_json(json.loads((tmp_path / "page.json").read_text())) == result


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *circle(10)]) + "\n")
    Dataset.from_files(tmp_path / "log.csv", out=tmp_path / "dataset")
    return tmp_path / "dataset"


def typed(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["recloom", "backtest", *map(str, words)])
    try:
        main()
    except SystemExit as exit_:
        return exit_.code or 0
    return 0


def test_the_command_writes_a_page_and_says_what_to_do(prepared, tmp_path, monkeypatch, capsys):
    options = ["--model", "popular", "--steps", "2", "--habits", "never,update,retrain,window:3"]
    files = ["--out", tmp_path / "page.html", "--json", tmp_path / "all.json"]
    assert typed(monkeypatch, prepared, *options, *files) == 0
    out = capsys.readouterr().out
    assert "retrain on" in out  # the rest may be cut off where the terminal is narrow
    assert "Take “" in out
    assert len(from_json(json.loads((tmp_path / "all.json").read_text())).courses) == 4
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--habits", "often"], "unknown habit 'often'"),
        (["--steps", "0"], "at least one step"),
        (["--out", "page.pdf"], "a report ends in .html, .md, .json"),
        (["--out", "nowhere/page.html"], "there is no folder nowhere"),
    ],
)
def test_the_command_refuses_in_one_sentence(prepared, tmp_path, monkeypatch, capsys, options, sentence):
    assert typed(monkeypatch, prepared, "--out", tmp_path / "page.html", "--model", "popular", *options) == 2
    assert sentence in capsys.readouterr().err
