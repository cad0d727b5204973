"""What has changed is found by the line that measures it, and by no other."""

import json

import numpy as np
import pytest

from recloom import Recommender
from recloom.events import read_interactions, read_items
from recloom.lifecycle.drift import jensen_shannon, measure_drift

ITEMS = 12
CATALOGUE = [f"i{item:02},{'film' if item < 6 else 'garden'} number{item}" for item in range(ITEMS)]
HEADER = "user_id,item_id,timestamp,device"
SETTINGS = {"encoder": {"name": "hashing"}, "training": {"epochs": 2}, "split": {"everything": True}}


def happen(rng, begin, number, pick=None, device=("web", "phone"), users=60):
    """People walk on around a circle of items from wherever they are, at times of their own."""
    lines = []
    for step in range(number):
        user = int(rng.integers(users))
        item = pick(rng) if pick else f"i{(user * 5 + (begin + step) // users) % ITEMS:02}"
        lines.append(f"u{user:02},{item},{begin + step},{device[int(rng.integers(len(device)))]}")
    return lines


@pytest.fixture(scope="module")
def weave(tmp_path_factory):
    """A model of a log without drift."""
    from recloom import Dataset

    folder = tmp_path_factory.mktemp("drift")
    (folder / "log.csv").write_text("\n".join([HEADER, *happen(np.random.default_rng(0), 1_000_000, 3_000)]) + "\n")
    (folder / "items.csv").write_text("\n".join(["item_id,title", *CATALOGUE]) + "\n")
    return Recommender.fit(Dataset.from_files(folder / "log.csv", folder / "items.csv"), settings=SETTINGS)


@pytest.fixture
def drift_of(weave, tmp_path):
    def measure(lines, items=None, recommender=weave):
        (tmp_path / "new.csv").write_text("\n".join([HEADER, *lines]) + "\n")
        further = None
        if items:
            (tmp_path / "more.csv").write_text("\n".join(["item_id,title", *items]) + "\n")
            further = read_items(tmp_path / "more.csv")
        return measure_drift(recommender, read_interactions(tmp_path / "new.csv"), further)

    return measure


def verdicts(drift):
    return {measure.name: measure.verdict for measure in drift.measures}


INPUTS = ("popularity", "text", "context device", "new items", "new users")


@pytest.mark.parametrize("seed", range(1, 7))
def test_no_drift_is_fine_everywhere(drift_of, seed):
    found = verdicts(drift_of(happen(np.random.default_rng(seed), 1_003_000, 400)))
    assert {found[name] for name in INPUTS} == {"fine"}


def test_another_popularity_is_found(drift_of):
    # Within each half of the catalogue, so that texts are about the same things as before.
    def favourites(rng):
        return ["i01", "i07"][int(rng.integers(2))]

    found = verdicts(drift_of(happen(np.random.default_rng(1), 1_003_000, 400, favourites)))
    assert found["popularity"] == "update"
    assert {found[name] for name in ("context device", "new items", "new users")} == {"fine"}


def test_other_texts_are_found(drift_of):
    found = verdicts(drift_of(happen(np.random.default_rng(1), 1_003_000, 400, lambda rng: f"i{rng.integers(6):02}")))
    assert found["text"] == "update"
    assert {found[name] for name in ("context device", "new items", "new users")} == {"fine"}


def test_another_context_is_found_and_nothing_else(drift_of):
    found = verdicts(drift_of(happen(np.random.default_rng(1), 1_003_000, 400, device=["web", "web", "web", "car"])))
    assert found.pop("context device") == "update"
    assert {found[name] for name in INPUTS if name in found} == {"fine"}


def test_new_items_are_found_and_most_of_them_ask_for_training(drift_of):
    def some(rng):
        return f"n{rng.integers(3)}" if rng.random() < 0.3 else f"i{rng.integers(ITEMS):02}"

    new = [f"n{item},film number{item}" for item in range(3)]
    found = verdicts(drift_of(happen(np.random.default_rng(1), 1_003_000, 400, some), new))
    assert (found["new items"], found["context device"], found["new users"]) == ("update", "fine", "fine")
    nothing_old = drift_of(happen(np.random.default_rng(1), 1_003_000, 400, lambda rng: f"n{rng.integers(3)}"), new)
    assert verdicts(nothing_old)["new items"] == nothing_old.verdict == "retrain"


def test_strangers_are_found(drift_of):
    lines = [f"x{line[1:]}" for line in happen(np.random.default_rng(1), 1_003_000, 400)]
    drift = drift_of(lines)
    assert verdicts(drift)["new users"] == "update"
    assert drift.people_asked == 0
    assert verdicts(drift)["NDCG@10"] == "unknown"


def test_the_windows_hold_the_whole_log_and_show_when_it_began(drift_of):
    early = happen(np.random.default_rng(1), 1_003_000, 200)
    late = happen(np.random.default_rng(1), 1_003_200, 200, device=["car"])
    drift = drift_of([*early, *late])
    assert len(drift.windows) == 8
    assert sum(window.interactions for window in drift.windows) == drift.interactions == 400
    device = [window.values["context device"] for window in drift.windows]
    assert max(device[:4]) < 0.3 < 0.9 < min(device[4:])
    assert [window.begin for window in drift.windows] == [1_003_000 + 50 * window for window in range(8)]


@pytest.mark.parametrize(
    "lines",
    [
        ["u01,i03,2000000,web"],
        ["stranger,i03,2000000,web"],
        ["u01,nowhere,2000000,"],
    ],
)
def test_a_tiny_log_gives_sentences(drift_of, lines):
    drift = drift_of(lines)
    assert drift.interactions == 1
    assert {measure.verdict for measure in drift.measures} == {"unknown"}
    assert all(measure.reason for measure in drift.measures)
    json.dumps(drift.to_json(), allow_nan=False)


def test_what_is_known_already_is_no_drift(drift_of):
    drift = drift_of(happen(np.random.default_rng(0), 1_000_000, 3_000))
    assert (drift.interactions, drift.known, drift.verdict) == (0, 3_000, "fine")


def test_a_model_that_counts_has_not_seen_the_answers(drift_of, weave):
    # Everybody takes one item that was rare before: counting the answers in would put it first.
    popular = Recommender.fit(weave.dataset, "popular", settings={"split": {"everything": True}})
    lines = [f"u{user:02},rare,{1_003_000 + user},web" for user in range(60)]
    drift = drift_of(lines, ["rare,film rare"], popular)
    quality = next(measure for measure in drift.measures if measure.name == "NDCG@10")
    assert quality.value == 0
    assert verdicts(drift)["text"] == "unknown"


def test_a_model_that_is_worse_than_what_is_popular_is_to_be_trained_again(drift_of, dataset_of):
    day = 86_400
    # For long everybody took one thing, and in the last week another.
    long_ago = [f"u{user:02},i00,{day * step + user},web" for user in range(40) for step in range(20)]
    of_late = [f"u{user:02},i01,{day * (60 + step) + user},web" for user in range(40) for step in range(5)]
    settings = {"split": {"everything": True}}
    fitted = Recommender.fit(dataset_of([*long_ago, *of_late], header=HEADER), "popular", settings=settings)
    drift = drift_of([f"u{user:02},i01,{day * 66 + user},web" for user in range(40)], recommender=fitted)
    assert verdicts(drift)["popular-recent"] == drift.verdict == "retrain"


def test_a_model_that_has_aged_is_to_learn(drift_of, dataset_of):
    circle = happen(np.random.default_rng(3), 1_000_000, 3_000)
    settings = {"encoder": {"name": "hashing"}}
    fitted = Recommender.fit(dataset_of(circle, CATALOGUE, HEADER), "markov", settings=settings)
    as_before = happen(np.random.default_rng(4), 1_003_000, 400)
    backwards = [
        f"u{user:02},i{(user * 5 + 54 - 3 * step) % ITEMS:02},{1_003_000 + 60 * step + user},web"
        for step in range(6)
        for user in range(60)
    ]
    assert verdicts(drift_of(as_before, recommender=fitted))["NDCG@10"] == "fine"
    assert verdicts(drift_of(backwards, recommender=fitted))["NDCG@10"] == "update"


def test_the_distance_of_two_coins():
    middle = 0.75
    bits = 0.5 * (np.log2(1 / middle) + 0.5 * np.log2(0.5 / middle) + 0.5 * np.log2(0.5 / (1 - middle)))
    assert jensen_shannon(np.array([4, 0]), np.array([1, 1])) == pytest.approx(np.sqrt(bits))
