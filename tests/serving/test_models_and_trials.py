"""Models that are swapped while they serve, and experiments between them."""

import shutil
import threading
import time

import pytest

from recloom import Recommender
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
