import csv
import json
import shutil
import tomllib

import pytest

from recloom import Recommender
from recloom.models.classic import ItemKNN, Popular

QUICK = ["--protocol", "leave-one-out", "--encoder", "hashing"]


# recloom compare


def test_compare_prints_the_table_best_first_and_writes_report_and_json(run, shop, tmp_path):
    out, everything = tmp_path / "report.html", tmp_path / "everything.json"
    words = ["--models", "popular,markov", "--k", "5,10", "--slice-by", "device", "--json", everything]
    code, printed, _ = run("compare", shop / "dataset", "--out", out, *QUICK, *words)
    assert code == 0
    plain = json.loads(everything.read_text())
    assert [model["label"] for model in plain["models"]] == ["markov", "popular"]
    assert "dataset, leave-one-out, ties file" in printed
    assert printed.index("markov") < printed.index("popular")
    assert f"{plain['models'][0]['metrics']['NDCG@10']['mean']:.4f} ±" in printed
    assert "120 users asked" in printed
    assert f"Wrote {out}" in printed
    assert "device = phone" in plain["models"][0]["slices"]
    assert "markov is best with NDCG@10" in out.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "everything.json"}


@pytest.mark.parametrize("suffix", ["md", "tex", "json"])
def test_compare_writes_what_the_ending_says(run, shop, tmp_path, suffix):
    out = tmp_path / f"report.{suffix}"
    assert run("compare", shop / "dataset", "--out", out, *QUICK, "--models", "popular,random")[0] == 0
    begins = {"md": "# dataset: leave-one-out", "tex": r"\begin{tabular}", "json": '{\n "name": "dataset"'}
    assert out.read_text().startswith(begins[suffix])


def test_compare_takes_variants_options_for_all_and_fitted_models(run, shop, tmp_path):
    shutil.copytree(shop / "popular", tmp_path / "fitted")
    words = ["--models", f"item-knn,{tmp_path / 'fitted'}", "--variant", "short memory=item-knn model.half_life=0.5"]
    everything = tmp_path / "c.json"
    code, printed, _ = run(
        "compare", shop / "dataset", "--out", everything, *QUICK, *words, "--set", "recommend.include_seen=true"
    )
    assert code == 0
    assert "short memory" in printed
    models = {model["label"]: model for model in json.loads(everything.read_text())["models"]}
    assert set(models) == {"item-knn", "short memory", "fitted"}
    assert models["short memory"]["settings"]["model"]["half_life"] == 0.5
    assert models["item-knn"]["settings"]["recommend"]["include_seen"] is True


def test_compare_reads_a_log_as_it_is(run, shop, tmp_path):
    words = ["--items", shop / "items.csv", "--models", "popular,content-tfidf"]
    code, printed, _ = run("compare", shop / "events.csv", "--out", tmp_path / "r.md", *QUICK, *words)
    assert code == 0
    assert "120 users asked" in printed
    assert not list(shop.glob("events*/"))


def test_compare_goes_on_when_a_model_fails_and_shows_its_words_as_they_are(run, shop, tmp_path, monkeypatch):
    def fail(self, data):
        raise RuntimeError("no [/room] for [bold]it")

    monkeypatch.setattr(ItemKNN, "count", fail)
    words = ["--models", "item-knn", "--variant", "[i]mine[/]=popular"]
    code, printed, _ = run("compare", shop / "dataset", "--out", tmp_path / "r.html", *QUICK, *words)
    assert code == 0
    assert "no [/room] for [bold]it" in printed
    assert "[i]mine[/]" in printed
    assert (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "popular,markow"], "unknown model 'markow', and no folder of a fitted one; did you mean markov?"),
        (["--models", "popular,popular"], "'popular' is named twice"),
        (["--models", ","], "nothing to compare"),
        (["--models", "{}/dataset"], "no folder of a fitted one"),
        (["--models", "{}/weave", "--protocol", "temporal"], "was fitted on other data or under another split"),
        (["--out", "{tmp}/report.pdf"], "a report ends in .html, .md, .tex, .json"),
        (["--out", "{tmp}/nowhere/report.html"], "there is no folder {tmp}/nowhere"),
        (["--json", "{tmp}/nowhere/all.json"], "there is no folder {tmp}/nowhere"),
        (["--out", "{tmp}/folder.html"], "folder.html is a folder; name a file in it"),
        (["--variant", "mine"], "is not of the form 'LABEL=MODEL table.option=value ...'"),
        (["--variant", "mine="], "is not of the form 'LABEL=MODEL table.option=value ...'"),
        (["--variant", "=popular"], "is not of the form 'LABEL=MODEL table.option=value ...'"),
        (["--variant", "mine=weav"], "unknown model 'weav' of the variant 'mine'; did you mean weave?"),
        (["--variant", "mine=weave model.dropot=0.1"], "unknown option model.dropot; did you mean dropout?"),
        (["--variant", "mine=weave dropout=0.1"], "is not of the form table.option=value"),
        (["--variant", "mine=popular", "--variant", "mine=markov"], "'mine' is named twice"),
        (["--variant", "late=popular split.test_fraction=0.01"], "the variant 'late' sets [split]"),
        (["--set", "model.dropout=0.1"], "[model] holds options of one model"),
        (["--k", "0"], "the cutoffs [0] are no places of a list"),
        (["--k", "ten"], "is not a list of whole numbers"),
        (["--k", ""], "the cutoffs [] are no places of a list"),
        (["--seeds", "0"], "both have to be at least 1"),
        (["--windows", "2"], "several windows need the temporal protocol"),
        (["--slice-by", "devise"], "no column 'devise' of words to slice by; did you mean device?"),
        (["--category", "titel"], "the catalogue has no column 'titel'; did you mean title?"),
        (["--protocol", "leave-two-out"], "choose temporal, leave-one-out, user-disjoint"),
        (["--budget", "soon"], "write it as 90s"),
        (["--items", "{}/items.csv"], "--items goes with a log"),
        (["--config", "{tmp}/nowhere.toml"], "the run file {tmp}/nowhere.toml cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_compare_is_one_sentence_before_anything_is_fitted(
    run, shop, tmp_path, monkeypatch, words, message
):
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(Popular, "count", lambda self, data: pytest.fail("something was fitted"))
    options = {"--out": "{tmp}/report.html", "--models": "popular", "--protocol": "leave-one-out"}
    usual = [word for name, value in options.items() if name not in words for word in (name, value)]

    def placed(word):
        return word.replace("{}", str(shop)).replace("{tmp}", str(tmp_path))

    code, printed, err = run("compare", shop / "dataset", *map(placed, [*usual, *words]))
    assert (code, printed) == (2, "")
    assert err.startswith("recloom: ")
    assert len(err.strip().splitlines()) == 1
    assert placed(message) in err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_comparing_what_is_no_dataset_is_one_sentence(run, shop, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        code, _, err = run("compare", path, "--out", tmp_path / "r.html", "--models", "popular")
        assert code == 2
        assert f"no dataset at {path}" in err
        assert len(err.strip().splitlines()) == 1


# recloom tune


def test_tune_writes_a_run_file_that_fit_takes_and_its_trials(run, shop, tmp_path):
    out = tmp_path / "tuned"
    words = ["--model", "item-knn", "--trials", 4, "--protocol", "leave-one-out", "--set", "model.shrinkage=1.0"]
    code, printed, _ = run("tune", shop / "dataset", "--out", out, *words)
    assert code == 0
    assert "item-knn, the best of 4 trials" in printed
    assert "defaults" in printed
    assert "On validation users who had no part in choosing, the best gains" in printed
    assert f"Next: recloom fit {shop / 'dataset'} --config {out / 'best.toml'} --out MODEL" in printed
    best = tomllib.loads((out / "best.toml").read_text())
    assert best["recloom"]["model"] == "item-knn"
    assert best["split"]["protocol"] == "leave-one-out"
    assert best["model"]["shrinkage"] == 1.0
    with (out / "trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert [trial["trial"] for trial in trials] == ["0", "1", "2", "3"]
    assert set(trials[0]) == {"trial", "validation", "seconds", "model.neighbours", "model.half_life"}
    assert all(0 <= float(trial["validation"]) <= 1 for trial in trials)

    assert run("fit", shop / "dataset", "--config", out / "best.toml", "--out", tmp_path / "model")[0] == 0
    config = Recommender.load(tmp_path / "model").config
    assert (config.model_name, config.split.protocol) == ("item-knn", "leave-one-out")
    assert config.to_toml()["model"] == ItemKNN.Config(**best["model"]).__dict__


def test_tune_goes_on_where_it_was(run, shop, tmp_path):
    words = ["--out", tmp_path / "tuned", "--model", "item-knn", "--protocol", "leave-one-out"]
    assert run("tune", shop / "dataset", *words, "--trials", 2)[0] == 0
    first = (tmp_path / "tuned" / "trials.csv").read_text()
    assert "the best of 3 trials" in run("tune", shop / "dataset", *words, "--trials", 3)[1]
    assert (tmp_path / "tuned" / "trials.csv").read_text().startswith(first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "item-kn"], "unknown model 'item-kn'; did you mean item-knn?"),
        (["--model", "popular"], "popular has nothing to tune that is not set already"),
        (["--model", "ease", "--set", "model.regularization=1"], "ease has nothing to tune that is not set already"),
        (["--set", "model.dropot=0.1"], "unknown option model.dropot; did you mean dropout?"),
        (["--budget", "soon"], "write it as 90s"),
        (["--protocol", "random"], "choose temporal, leave-one-out, user-disjoint"),
        (["--out", "{}/events.csv"], "events.csv is a file; name a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_tune_is_one_sentence_and_leaves_nothing(run, shop, tmp_path, words, message):
    before = (shop / "events.csv").read_bytes()
    out = [] if "--out" in words else ["--out", tmp_path / "tuned"]
    code, _, err = run("tune", shop / "dataset", *out, *(word.replace("{}", str(shop)) for word in words))
    assert code == 2
    assert err.startswith("recloom: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []
    assert (shop / "events.csv").read_bytes() == before
