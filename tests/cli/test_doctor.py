import json

import pytest


@pytest.fixture
def later(tmp_path):
    lines = [
        f"u{user:03},{(user * 7 + step) % 40:04},{1_750_000_000 + user * 60 + step},view,phone"
        for user in range(60)
        for step in range(3)
    ]
    path = tmp_path / "later.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp,behavior,device", *lines]) + "\n")
    return path


def test_doctor_says_how_far_a_model_and_the_news_have_come_apart(run, shop, later, tmp_path):
    code, out, err = run("doctor", shop / "weave", later, "--json", tmp_path / "drift.json")
    assert (code, err) == (0, "")
    for word in ("popularity", "text", "context device", "new items", "popular-recent", "since (UTC)"):
        assert word in out
    drift = json.loads((tmp_path / "drift.json").read_text())
    assert drift["interactions"] == 180
    assert f"{drift['verdict']}: " in out
    measures = {measure["name"]: measure for measure in drift["measures"]}
    assert measures["context device"]["verdict"] == "update"
    quality = measures["NDCG@10"]
    low, high = quality["interval"]
    assert low < quality["value"] < high
    assert f"({low:.4f} to" in out
    assert "Next: recloom" in out


def test_doctor_on_one_event_and_on_nothing_new_says_so(run, shop, tmp_path):
    (tmp_path / "one.csv").write_text("user_id,item_id,timestamp\nsomebody,0001,1750000000\n")
    code, out, _ = run("doctor", shop / "weave", tmp_path / "one.csv")
    assert code == 0
    assert "too little to tell" in out
    code, out, _ = run("doctor", shop / "popular", shop / "events.csv")
    assert code == 0
    assert "nothing in the log is new" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{shop}/weave"], "name a log of what people did since"),
        (["{shop}/nothing", "{shop}/events.csv"], "nothing"),
        (["{shop}/weave", "{shop}/missing.csv"], "missing.csv"),
        (["--json", "x.json"], "go with a model"),
    ],
)
def test_doctor_refuses_in_one_sentence(run, shop, words, sentence):
    code, _, err = run("doctor", *(word.format(shop=shop) for word in words))
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
