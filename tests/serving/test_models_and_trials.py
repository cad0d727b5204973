"""Models that are swapped while they serve, and experiments between them."""

import gc
import shutil
import threading
import time
import weakref
from pathlib import Path

import pytest

from recloom import Recommender
from recloom.files import CHECKSUMS, file_digest
from recloom.lifecycle.versions import add_version, changing, roll_back
from recloom.serving import Settings
from tests.serving.helpers import ask, asked_ids, post, problem, wait_until

TWO = {
    "name": "two",
    "variants": [
        {"name": "now", "share": 0.5},
        {"name": "other", "model": "second", "share": 0.5, "rules": {"deny": ["i01"]}},
    ],
}


def models(client):
    return {fact["name"]: fact for fact in client.get("/v1/models").json()["models"]}


def load(client, name, path):
    answer = client.post("/v1/models", json={"name": name, "path": str(path)})
    assert answer.status_code == 202, answer.text
    version = answer.json()["version"]
    wait_until(lambda: models(client).get(name, {}).get("version") == version, 20)
    return version


def flip_a_byte(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_models_are_told_with_their_versions(shared):
    facts = shared.get("/v1/models").json()
    assert facts["problems"] == []
    told = facts["models"][0]
    assert (told["name"], told["model"], told["items"], told["search"]) == ("default", "weave", 24, "exact")
    assert ask(shared, user_id="u01")["model"] == f"default@{told['version']}"


def test_a_second_model_is_loaded_beside_the_first_and_asked_by_name(serve, second_model):
    client = serve()
    version = load(client, "second", second_model)
    answer = ask(client, user_id="u01", model="second")
    assert (answer["model"], answer["served_by"]) == (f"second@{version}", "markov")
    assert ask(client, user_id="u01")["served_by"] == "weave"
    assert set(models(serve())) == {"default", "second"}  # after a restart too


def test_a_model_in_the_place_of_the_default_serves_after_a_restart_too(serve, second_model):
    client = serve()
    load(client, "default", second_model)
    assert ask(client, user_id="u01")["served_by"] == "markov"
    assert ask(serve(), user_id="u01")["served_by"] == "markov"


def test_a_service_started_with_another_folder_serves_that_one(serve, second_model, model_copy):
    load(serve(), "default", second_model)
    assert ask(serve(model_copy), user_id="u01")["served_by"] == "weave"


def test_what_is_no_model_is_refused(shared, tmp_path):
    problem(shared.post("/v1/models", json={"name": "x", "path": str(tmp_path)}), 422, "is not a model folder")
    problem(shared.post("/v1/models", json={"name": "x", "path": "\0"}), 422, "is not a model folder")
    assert set(models(shared)) == {"default"}


def test_a_damaged_model_is_refused_when_it_is_sent(serve, model_copy):
    flip_a_byte(model_copy)
    client = serve()
    answer = client.post("/v1/models", json={"name": "default", "path": str(model_copy)})
    problem(answer, 422, "is damaged: model.safetensors is not what was written; the old one stays")
    assert ask(client, user_id="u01")["served_by"] == "weave"


def replace_with(folder, other, *, damaged=False):
    """Put another model into a folder in the two renames that `Recommender.save` makes."""
    beside = folder.with_name("beside")
    shutil.copytree(other, beside)
    if damaged:
        flip_a_byte(beside)
    folder.rename(folder.with_name("previous"))
    beside.rename(folder)
    shutil.rmtree(folder.with_name("previous"))


def test_a_damaged_model_in_the_watched_folder_is_refused_and_the_old_one_serves(
    serve, model_copy, second_model, monkeypatch
):
    monkeypatch.setattr("recloom.serving.engine.WATCH_SECONDS", 0.1)
    client = serve(model_copy)
    version = models(client)["default"]["version"]
    replace_with(model_copy, second_model, damaged=True)
    wait_until(lambda: client.get("/v1/models").json()["problems"])
    assert "model.safetensors" in client.get("/v1/models").json()["problems"][0]["detail"]
    assert ask(client, user_id="u01")["model"] == f"default@{version}"
    assert client.get("/readyz").json()["version"] == version


def test_a_new_version_in_the_watched_folder_takes_over_under_load_without_a_failed_request(
    serve, model_copy, second_model, monkeypatch
):
    monkeypatch.setattr("recloom.serving.engine.WATCH_SECONDS", 0.1)
    client = serve(model_copy)
    seen, failed, stop = [], [], threading.Event()

    def load_it(number):
        while not stop.is_set():
            answer = client.post("/v1/recommendations", json={"user_id": f"u{number:02}", "k": 5})
            if answer.status_code == 200 and len(answer.json()["items"]) == 5:
                seen.append(answer.json()["served_by"])
            else:
                failed.append(answer.text)

    threads = [threading.Thread(target=load_it, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(seen) > 20)
    Recommender.load(second_model).save(model_copy)
    wait_until(lambda: seen[-1] == "markov", 20)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen[0] == "weave"


def test_a_model_that_is_updated_and_rolled_back_is_followed(serve, model_copy, tmp_path, monkeypatch):
    monkeypatch.setattr("recloom.serving.engine.WATCH_SECONDS", 0.1)
    client = serve(model_copy)
    first = models(client)["default"]["version"]
    (tmp_path / "later.csv").write_text("user_id,item_id,timestamp\nu01,i05,2000000\nsomebody new,i07,2000001\n")
    with changing(model_copy):
        add_version(Recommender.load(model_copy).update(tmp_path / "later.csv"), model_copy)
    wait_until(lambda: models(client)["default"]["version"] != first, 20)
    assert "i05" not in asked_ids(client, user_id="u01", k=24, include_seen=False)
    second = models(client)["default"]["version"]
    roll_back(model_copy)
    wait_until(lambda: models(client)["default"]["version"] == first, 20)
    assert load(client, "again", model_copy) == first
    roll_back(model_copy, "v0002")
    assert models(serve(model_copy))["default"]["version"] == second  # a start takes the current one as well


def test_items_that_came_and_went_are_known_to_a_model_that_is_loaded_later(serve, model, model_copy):
    client = serve()
    client.put("/v1/items/fresh", json={"title": "film number12 kind3"})
    client.delete("/v1/items/i13")
    load(client, "again", model_copy)
    got = asked_ids(client, user_id="u01", model="again", k=100, include_seen=True)
    assert "fresh" in got
    assert "i13" not in got


def test_a_service_whose_second_model_is_gone_starts_and_says_so(serve, model_copy):
    load(serve(), "second", model_copy)
    shutil.rmtree(model_copy)
    client = serve()
    told = client.get("/v1/models").json()
    assert [fact["name"] for fact in told["models"]] == ["default"]
    assert told["problems"][0]["name"] == "second"


def test_a_model_that_was_loaded_is_removed_from_every_instance_and_from_memory(serve, second_model):
    client, other = serve(), serve()
    load(client, "second", second_model)
    wait_until(lambda: "second" in models(other), 20)
    ask(client, user_id="u01", model="second")
    gc.collect()
    gc.disable()
    try:
        held = [weakref.ref(one.app.state.service.engine.models["second"]) for one in (client, other)]
        answer = client.delete("/v1/models/second")
        assert (answer.status_code, answer.json()) == (200, {"name": "second", "status": "removed"})
        assert set(models(client)) == {"default"}
        wait_until(lambda: [model() for model in held] == [None, None])
    finally:
        gc.enable()
    for one in (client, other, serve()):
        problem(one.delete("/v1/models/second"), 404, "there is no model 'second'; there are: default")
        problem(one.post("/v1/recommendations", json={"user_id": "u01", "model": "second"}), 422, "has no model")
    load(other, "second", second_model)
    assert ask(other, user_id="u01", model="second")["served_by"] == "markov"


def test_a_model_is_removed_while_it_is_being_loaded(serve, second_model):
    client = serve()
    engine = client.app.state.service.engine
    is_free = threading.Event()
    engine._loader.submit(is_free.wait)  # as a large model before it would
    answer = client.post("/v1/models", json={"name": "second", "path": str(second_model)})
    assert answer.status_code == 202
    assert client.delete("/v1/models/second").status_code == 200
    is_free.set()
    wait_until(lambda: not engine._loading, 20)
    assert set(models(client)) == {"default"}
    load(client, "second", second_model)


def test_a_model_that_could_not_be_loaded_is_removed_with_its_problem(serve, model_copy):
    load(serve(), "second", model_copy)
    shutil.rmtree(model_copy)
    client = serve()
    assert client.delete("/v1/models/second").status_code == 200
    assert client.get("/v1/models").json()["problems"] == []


# Experiments


@pytest.fixture
def trial(serve, second_model):
    client = serve()
    load(client, "second", second_model)
    answer = client.post("/v1/experiments", json=TWO)
    assert (answer.status_code, answer.json()) == (201, {"name": "two", "status": "running"})
    return client


def variants(client, users=60):
    return {f"p{n}": ask(client, user_id=f"p{n}")["variant"] for n in range(users)}


def test_everybody_stays_in_one_variant_and_it_decides_the_model_and_the_rules(trial, serve):
    first = variants(trial)
    assert first == variants(trial) == variants(serve())
    assert 15 < sum(name == "now" for name in first.values()) < 45
    for user, name in list(first.items())[:20]:
        post(trial, {"user_id": user, "item_id": "i10"})
        answer = ask(trial, user_id=user, k=100, include_seen=True)
        assert answer["served_by"] == {"now": "weave", "other": "markov"}[name]
        assert ("i01" in [place["item_id"] for place in answer["items"]]) == (name == "now")


def test_those_outside_the_experiment_get_the_default(trial):
    assert ask(trial, history=["i01"])["variant"] is None
    assert ask(trial, user_id="p1", model="second")["variant"] is None


def test_an_experiment_stops_for_good(trial):
    answer = trial.post("/v1/experiments/two/stop")
    assert answer.json() == {"name": "two", "status": "stopped"}
    assert set(variants(trial, 5).values()) == {None}
    problem(trial.post("/v1/experiments", json=TWO), 409, "there is an experiment 'two' already")
    assert trial.get("/v1/experiments").json()["experiments"][0]["stopped"] <= time.time()


def test_the_model_of_a_variant_is_promoted(trial, serve):
    answer = trial.post("/v1/experiments/two/promote", json={"variant": "other"})
    assert answer.json() == {"name": "two", "status": "stopped", "promoted": "other"}
    wait_until(lambda: ask(trial, user_id="u01")["served_by"] == "markov", 10)
    assert ask(serve(), user_id="u01")["served_by"] == "markov"
    assert trial.get("/v1/experiments").json()["experiments"][0]["promoted"] == "other"


def test_the_default_and_what_an_experiment_asks_cannot_be_removed(serve, second_model):
    client = serve()
    load(client, "second", second_model)
    load(client, "third", second_model)
    variants = [{"name": "now", "share": 0.5}, {"name": "other", "model": "second", "share": 0.5}]
    assert client.post("/v1/experiments", json={"name": "e", "variants": variants, "shadows": ["third"]}).is_success
    problem(client.delete("/v1/models/default"), 409, "the default model cannot be removed; load another one in its")
    for name in ("second", "third"):
        problem(client.delete(f"/v1/models/{name}"), 409, f"experiment 'e' asks the model '{name}'; stop it first")
    client.post("/v1/experiments/e/promote", json={"variant": "other"})
    wait_until(lambda: ask(client, user_id="u01")["served_by"] == "markov", 10)
    for name in ("second", "third"):
        assert client.delete(f"/v1/models/{name}").status_code == 200
    problem(client.delete("/v1/models/default"), 409, "the default model cannot be removed")
    for one in (client, serve()):
        assert ask(one, user_id="u01")["served_by"] == "markov"


def test_the_folder_of_a_promoted_model_is_watched_and_that_of_the_one_before_is_not(
    serve, model, model_copy, second_model, tmp_path, monkeypatch
):
    monkeypatch.setattr("recloom.serving.engine.WATCH_SECONDS", 0.1)
    second = shutil.copytree(second_model, tmp_path / "second")
    client = serve(model_copy)
    load(client, "second", second)
    assert client.post("/v1/experiments", json=TWO).status_code == 201
    client.post("/v1/experiments/two/promote", json={"variant": "other"})
    wait_until(lambda: ask(client, user_id="u01")["served_by"] == "markov", 10)
    replace_with(model_copy, second_model, damaged=True)  # would be a problem if anybody looked
    time.sleep(0.5)
    assert client.get("/v1/models").json()["problems"] == []
    replace_with(second, model)
    for asked in ({"model": "second"}, {}):
        wait_until(lambda asked=asked: ask(client, user_id="u01", **asked)["served_by"] == "weave", 20)
    assert "i01" not in asked_ids(client, user_id="u01", k=100, include_seen=True)  # under the same rules


def test_a_promotion_is_for_the_instances_that_were_started_with_the_same_folder(trial, serve, model_copy):
    other = serve(model_copy)
    trial.post("/v1/experiments/two/promote", json={"variant": "other"})
    wait_until(lambda: ask(trial, user_id="u01")["served_by"] == "markov", 10)
    assert ask(other, history=["i01"])["variant"] is None
    assert not other.app.state.service.engine._loading
    for one in (other, serve(model_copy)):
        assert ask(one, user_id="u01")["served_by"] == "weave"


def test_experiments_are_checked(trial):
    other = {**TWO, "name": "three"}
    problem(trial.post("/v1/experiments", json=other), 409, "or another one runs; stop it first")
    problem(trial.post("/v1/experiments/none/stop"), 404, "there is no experiment 'none'")
    problem(trial.post("/v1/experiments/two/promote", json={"variant": "x"}), 422, "there are: now, other")
    wrong = {"name": "w", "variants": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.4}]}
    problem(trial.post("/v1/experiments", json=wrong), 422, "the shares of the variants add up to 0.9")
    wrong = {"name": "w", "variants": [{"name": "a", "share": 1, "model": "third"}]}
    problem(trial.post("/v1/experiments", json=wrong), 422, "the service has no model 'third'")
    problem(trial.post("/v1/experiments", json={"name": "w"}), 422, "experiment.variants")
    problem(trial.post("/v1/experiments", json={"name": "w", "variants": []}), 422, "variants with different names")


def test_what_people_do_is_counted_for_the_list_it_came_from(trial):
    people = list(variants(trial, 10))
    lists = {user: ask(trial, user_id=user) for user in people}
    names = [answer["variant"] for answer in lists.values()]
    clicker, buyer = people[0], people[1]
    shown = lists[clicker]["items"][0]["item_id"]
    post(trial, {"user_id": clicker, "item_id": shown})
    bought = {"user_id": buyer, "behavior": "purchase", "value": 12.5}
    named = {**bought, "recommendation_id": lists[buyer]["recommendation_id"]}
    post(trial, {**named, "item_id": lists[buyer]["items"][1]["item_id"]}, {**named, "item_id": "never shown"})
    post(trial, {"user_id": people[2], "item_id": "never shown"})
    report = trial.get("/v1/experiments").json()["experiments"][0]
    told = {variant["name"]: variant for variant in report["variants"]}
    for name in ("now", "other"):
        lists_shown = told[name]["recommendations"]
        assert lists_shown == 2 * names.count(name)
        clicks = [names[0], names[1]].count(name)
        assert told[name]["ctr_value"] == pytest.approx(clicks / lists_shown, abs=1e-6)
        sales = [names[1]].count(name)
        assert told[name]["conversion_value"] == pytest.approx(sales / lists_shown, abs=1e-6)
        assert told[name]["revenue_value"] == pytest.approx(12.5 * sales / lists_shown, abs=1e-6)


def test_a_shadow_is_asked_and_never_shown(serve, second_model):
    client = serve()
    load(client, "second", second_model)
    definition = {"name": "dark", "variants": [{"name": "now", "share": 1}], "shadows": ["second"]}
    assert client.post("/v1/experiments", json=definition).status_code == 201
    assert ask(client, user_id="u01")["served_by"] == "weave"
    client.app.state.service.engine.call(lambda: None).result(5)
    store = client.app.state.service.store
    store.add(()).result(5)
    from sqlalchemy import select

    from recloom.serving.database import recommendations

    with store.database.transaction() as connection:
        rows = connection.execute(select(recommendations).order_by(recommendations.c.is_shadow)).all()
    assert [(row.is_shadow, row.served_by) for row in rows] == [(False, "weave"), (True, "markov")]
    assert client.get("/v1/experiments").json()["experiments"][0]["variants"][0]["recommendations"] == 1


def test_an_experiment_whose_rules_name_nothing_is_refused(serve):
    client = serve()
    rules = {"where": {"colour": {"=": "red"}}}
    variants = [{"name": "now", "share": 0.5}, {"name": "red", "share": 0.5, "rules": rules}]
    answer = client.post("/v1/experiments", json={"name": "red", "variants": variants})
    problem(answer, 422, "the catalogue has no column 'colour'")
    assert ask(client, user_id="u01")["variant"] is None


def test_a_promoted_variant_keeps_its_rules(serve):
    client = serve()
    variants = [{"name": "now", "share": 0.5}, {"name": "cheap", "share": 0.5, "rules": {"where": {"price": {"<": 3}}}}]
    assert client.post("/v1/experiments", json={"name": "price", "variants": variants}).status_code == 201
    assert client.post("/v1/experiments/price/promote", json={"variant": "cheap"}).status_code == 200
    for restarted in (client, serve()):
        shown = ask(restarted, history=["i10"], include_seen=True)["items"]
        assert {item["item_id"] for item in shown} == {"i00", "i01", "i02"}


CHEAP = {"where": {"price": {"<": 3}}}


def start_trial(client, name, **variant):
    variants = [{"name": "now", "share": 0.5}, {"name": "cheap", "share": 0.5, **variant}]
    assert client.post("/v1/experiments", json={"name": name, "variants": variants}).status_code == 201


def promote(client, name, variant):
    assert client.post(f"/v1/experiments/{name}/promote", json={"variant": variant}).status_code == 200


def test_a_model_whose_catalogue_does_not_suit_a_running_variant_is_refused_until_the_experiment_ends(
    serve, model_copy, plain_model, monkeypatch
):
    monkeypatch.setattr("recloom.serving.engine.WATCH_SECONDS", 0.1)
    client = serve(model_copy)
    start_trial(client, "price", rules=CHEAP)
    replace_with(model_copy, plain_model)
    wait_until(lambda: client.get("/v1/models").json()["problems"], 10)
    told = client.get("/v1/models").json()["problems"][0]
    assert (told["name"], "the catalogue has no column 'price'" in told["detail"]) == ("default", True)
    assert {ask(client, user_id=f"u{number:02}")["served_by"] for number in range(20)} == {"weave"}
    client.post("/v1/experiments/price/stop")
    wait_until(lambda: ask(client, user_id="u01")["served_by"] == "markov", 10)
    assert client.get("/v1/models").json()["problems"] == []


def test_a_model_whose_catalogue_does_not_suit_a_promoted_variant_is_refused(
    serve, model_copy, plain_model, monkeypatch
):
    monkeypatch.setattr("recloom.serving.engine.WATCH_SECONDS", 0.1)
    client = serve(model_copy)
    start_trial(client, "price", rules=CHEAP)
    promote(client, "price", "cheap")
    wait_until(lambda: not client.app.state.service.engine._loading, 10)
    replace_with(model_copy, plain_model)
    wait_until(lambda: client.get("/v1/models").json()["problems"], 10)
    assert "no column 'price'" in client.get("/v1/models").json()["problems"][0]["detail"]
    shown = ask(client, history=["i10"], include_seen=True)
    assert (shown["served_by"], {item["item_id"] for item in shown["items"]}) == ("weave", {"i00", "i01", "i02"})


def test_a_service_that_starts_with_a_model_which_does_not_suit_the_experiment_says_so(serve, model_copy, plain_model):
    start_trial(serve(model_copy), "price", rules=CHEAP)
    replace_with(model_copy, plain_model)
    client = serve(model_copy)
    assert "no column 'price'" in client.get("/v1/models").json()["problems"][0]["detail"]
    assert client.get("/live").status_code == 200
    client.post("/v1/experiments/price/stop")
    assert client.get("/v1/models").json()["problems"] == []
    assert ask(client, user_id="u01")["served_by"] == "markov"


def test_a_shadow_has_to_suit_the_rules_of_the_variants(serve, plain_model):
    client = serve()
    load(client, "plain", plain_model)
    definition = {"name": "dark", "variants": [{"name": "now", "share": 1, "rules": CHEAP}], "shadows": ["plain"]}
    problem(client.post("/v1/experiments", json=definition), 422, "the catalogue has no column 'price'")


def test_a_large_model_may_take_longer_to_be_read_than_others_wait(serve, second_model, tmp_path):
    second = Path(shutil.copytree(second_model, tmp_path / "second"))
    with (second / "large").open("wb") as large:
        large.truncate(1 << 30)
    digest = file_digest(second / "large")
    with (second / CHECKSUMS).open("a") as sums:
        sums.write(f"{digest}  large\n")
    answer = serve(timeout=0.2).post("/v1/models", json={"name": "second", "path": str(second)})
    assert answer.status_code == 202


def test_rules_that_only_the_promoted_model_can_obey_wait_until_it_serves(serve, plain_model, model):
    client = serve(plain_model)
    load(client, "second", model)
    start_trial(client, "price", model="second", rules=CHEAP)
    is_free = threading.Event()
    client.app.state.service.engine._loader.submit(is_free.wait)  # as a large model would
    promote(client, "price", "cheap")
    assert ask(client, user_id="u01")["served_by"] == "markov"
    is_free.set()
    wait_until(lambda: ask(client, history=["i10"])["served_by"] == "weave", 10)
    assert set(asked_ids(client, history=["i10"], include_seen=True)) == {"i00", "i01", "i02"}


def test_what_was_promoted_before_is_part_of_what_is_promoted(serve):
    client = serve()
    start_trial(client, "price", rules=CHEAP)
    promote(client, "price", "cheap")
    start_trial(client, "fewer", rules={"deny": ["i01"]})
    promote(client, "fewer", "cheap")
    for one in (client, serve()):
        assert set(asked_ids(one, history=["i10"], include_seen=True)) == {"i00", "i02"}
        similar = one.get("/v1/items/i12/similar?k=50").json()["items"]
        assert {place["item_id"] for place in similar} == {"i00", "i02"}


def test_what_counts_for_nothing_is_no_click(serve):
    client = serve(settings=Settings(behaviors={"impression": 0.0}))
    variants = [{"name": "all", "share": 1.0}]
    assert client.post("/v1/experiments", json={"name": "seen", "variants": variants}).status_code == 201
    shown = ask(client, user_id="u01")
    post(client, {"user_id": "u01", "item_id": shown["items"][0]["item_id"], "behavior": "impression"})
    assert client.get("/v1/experiments").json()["experiments"][0]["variants"][0]["ctr_value"] == 0.0


def test_another_site_cannot_change_anything(serve):
    client = serve()
    variants = [{"name": "all", "share": 1.0}]
    assert client.post("/v1/experiments", json={"name": "mine", "variants": variants}).status_code == 201
    answer = client.post("/v1/experiments/mine/stop", headers={"sec-fetch-site": "cross-site"})
    problem(answer, 403, "another site")
    assert ask(client, user_id="u01")["variant"] == "all"
