"""What an explanation says is what the model does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloom.dataset import Interaction
from recloom.errors import ConfigError, UnknownIdError
from recloom.explanation import Reason, sentence_of
from recloom.explanation.words import without_word, words_of
from recloom.models import MODELS
from tests.explanation.conftest import FILMS

SIX = [f"i{item}" for item in (0, 1, 2, 3, 4, 5)]
PARTS = ("id", "text", "id and text", "popularity", "any item")


def score_of(recommender, history, item, **options):
    ranked = recommender.recommend(history=history, k=FILMS + 1, include_seen=True, **options)
    return {place.item_id: place.score for place in ranked.items}[item]


def of_kind(reasons, *kinds):
    return [reason for reason in reasons if reason.kind in kinds]


@pytest.mark.parametrize("name", ["weave", "ease", "item-knn", "content", "markov", "lm-fusion"])
def test_a_contribution_is_the_difference_of_two_lists(fitted, name):
    recommender = fitted(name)
    told = recommender.explain("i6", history=SIX)
    past = of_kind(told.reasons, "history")
    assert {reason.item_id for reason in past} <= set(SIX)
    assert len(past) == min(len(SIX), recommender.model.max_length)
    whole = score_of(recommender, SIX, "i6")
    assert told.score == pytest.approx(whole, rel=1e-6)
    for reason in past:
        without = [item for item in SIX if item != reason.item_id]
        # With one gone, weave reads an older one: it looks at four.
        assert reason.contribution == pytest.approx(whole - score_of(recommender, without, "i6"), abs=2e-6)


@pytest.mark.parametrize("fusion", ["sum", "gated", "concat", "id", "text", "init", "separate", "likeness"])
def test_the_parts_add_up_to_the_score(fitted, fusion):
    recommender = fitted("weave", fusion=fusion)
    for item in ("i6", "new"):
        told = recommender.explain(item, history=SIX)
        parts = {reason.kind: reason.contribution for reason in of_kind(told.reasons, *PARTS)}
        assert sum(parts.values()) == pytest.approx(told.score, rel=1e-6)
        if item == "new" and fusion != "text":
            assert parts["id"] == 0  # nobody had it: its text alone places it
            assert of_kind(told.reasons, "new")


def test_parts_add_up_under_a_dot_product_and_in_shards(films, fitted):
    from recloom import Recommender
    from tests.explanation.conftest import SMALL

    for recommender in (
        fitted("weave", similarity="dot"),
        Recommender.fit(films, settings={**SMALL, "privacy": {"shards": 2}}),
    ):
        told = recommender.explain("i6", history=SIX)
        assert sum(reason.contribution for reason in of_kind(told.reasons, *PARTS)) == pytest.approx(
            told.score, rel=1e-5
        )


def test_coded_vectors_do_not_know_id_from_text_and_say_so(fitted):
    from recloom.compression.quantizing import quantize

    told = quantize(fitted("weave", dropout=0.31)).explain("i6", history=SIX)
    parts = {reason.kind: reason.contribution for reason in of_kind(told.reasons, *PARTS)}
    assert "id and text" in parts
    assert sum(parts.values()) == pytest.approx(told.score, rel=1e-5)
    assert any("id and text cannot be told apart" in note for note in told.notes)


def test_a_part_of_the_context_counts_what_the_score_loses_without_it(films):
    from recloom import Recommender
    from tests.explanation.conftest import SMALL

    asked = {**SMALL, "split": {"request": "timestamp,device"}}
    recommender = Recommender.fit(films, settings={**asked, "training": {"epochs": 6}})
    history = [Interaction("i1", 1_000_000), Interaction("i2", 1_000_050)]
    situation = {"device": "web", "timestamp": 1_000_100}
    told = recommender.explain("i3", history=history, context=situation)
    told_by_name = {reason.name: reason.contribution for reason in of_kind(told.reasons, "context")}
    assert set(told_by_name) == {"device", "time"}
    whole = score_of(recommender, history, "i3", context=situation)
    without = score_of(recommender, history, "i3", context={"timestamp": 1_000_100})
    assert told_by_name["device"] == pytest.approx(whole - without, abs=2e-6)


def test_a_word_counts_what_the_score_loses_when_the_text_lacks_it(fitted, monkeypatch, tmp_path):
    import polars as pl

    monkeypatch.setenv("RECLOOM_CACHE", str(tmp_path))
    recommender = fitted("weave")
    told = recommender.explain("i6", history=SIX, words=True)
    words = {reason.name: reason.contribution for reason in of_kind(told.reasons, "word")}
    assert set(words) == {"film", "number6", "kind3"}
    changed = recommender.with_items(pl.DataFrame({"item_id": ["i6"], "title": ["film number6"]}))
    difference = told.score - score_of(changed, SIX, "i6")
    assert words["kind3"] == pytest.approx(difference, abs=1e-5)
    assert recommender.explain("i6", history=SIX).score == told.score  # nothing of it stays
    assert (tmp_path / "explained-words.h5").exists()


def test_a_model_without_text_says_so(fitted, monkeypatch, tmp_path):
    monkeypatch.setenv("RECLOOM_CACHE", str(tmp_path))
    told = fitted("ease").explain("i6", history=SIX, words=True)
    assert not of_kind(told.reasons, "word")
    assert any("reads no item text" in note for note in told.notes)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("mf",)])
def test_every_model_recommends_with_an_explanation(fitted, name):
    settings_of = {"ncf": {"embedding_dim": 8}, "two-tower": {"embedding_dim": 16}, "lm-fusion": {"hidden_dim": 16}}
    recommender = fitted(name, **settings_of.get(name, {}))
    plain = recommender.recommend(user="u03", k=3, include_seen=True)
    explained = recommender.recommend(user="u03", k=3, include_seen=True, explain=True)
    assert [(place.item_id, place.score) for place in plain.items] == [
        (place.item_id, place.score) for place in explained.items
    ]
    assert all(place.because for place in explained.items)
    assert all(not place.because for place in plain.items)
    told = recommender.explain("i6", user="u03")
    notes = " ".join(told.notes)
    if name in ("popular", "popular-recent"):
        assert of_kind(told.reasons, "popular")
        assert "popularity is the only reason" in notes
    elif name == "ncf":
        assert not told.reasons
        assert "ncf knows people by who they are" in notes
    elif name == "random":
        assert not told.reasons
        assert "random draws lots" in notes
    else:
        assert of_kind(told.reasons, "history")


def test_a_long_history_is_explained_by_its_newest_interactions_and_says_so(fitted):
    recommender = fitted("ease")
    history = [f"i{step % FILMS}" for step in range(30)]
    told = recommender._reasoner.explain(
        recommender._spelled_out([history], recommender.model.max_length + 1)[0],
        [1],
        "en",
        most_tried=5,
        most_named=None,
    )[0]
    assert len(of_kind(told.reasons, "history")) == 5
    assert any("older ones were not tried" in note for note in told.notes)


def test_the_only_interaction_is_the_whole_reason(fitted):
    told = fitted().explain("i6", history=["i5"])
    assert [(r.item_id, r.contribution) for r in of_kind(told.reasons, "history")] == [("i5", None)]
    assert told.sentence.startswith("Because you viewed “film number5 kind2”.")


def test_an_empty_history_is_served_by_popularity(fitted):
    for history in ([], ["unknown"]):
        told = fitted().explain("i6", history=history)
        assert (told.score, [reason.kind for reason in told.reasons]) == (None, ["popular"])
        assert told.sentence == "Because many people take it."
        place = fitted().recommend(history=history, k=1, explain=True, language="zh").items[0]
        assert place.because == "因为很多人都选了它。"


def test_mistakes_are_one_sentence(fitted):
    with pytest.raises(UnknownIdError, match="item 'x' is not in the catalogue of 9 items"):
        fitted().explain("x", history=SIX)
    with pytest.raises(UnknownIdError, match="user 'x' is not among"):
        fitted().explain("i6", user="x")
    with pytest.raises(ConfigError, match="no sentences in the language 'fr'; choose en or zh"):
        fitted().recommend(history=SIX, explain=True, language="fr")
    with pytest.raises(ConfigError, match="give either user or history"):
        fitted().explain("i6")


# Sentences


def test_sentences_in_two_languages():
    past = [
        Reason("history", 2.0, "1", "Heat", "view"),
        Reason("history", 1.0, "2", "Alien", "view"),
        Reason("history", 0.5, "3", "Toy", "purchase"),
    ]
    assert sentence_of(past) == "Because you viewed “Heat” and “Alien” and bought “Toy”."
    assert sentence_of(past, "zh") == "因为你看过《Heat》和《Alien》和买过《Toy》。"
    assert sentence_of([*past[:1], Reason("popularity", 3.0)]) == "Because you viewed “Heat”. It is popular, too."
    assert "popular" not in sentence_of([*past[:1], Reason("popularity", 3.0), Reason("new")])
    assert sentence_of([*past[:1], Reason("context", 1.5, name="device")], "zh") == (
        "因为你看过《Heat》。它也适合当前情境（device）。"
    )
    assert sentence_of([Reason("new"), Reason("rules", -0.7, name="boost")]).endswith("moves it down.")
    assert sentence_of([*past, Reason("rules", name="pinned")]) == "A rule of the service puts it here."
    assert sentence_of([Reason("history", -1.0, "1", "Heat", "view")]) == "No single thing you did explains this one."


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, FILMS - 1), max_size=9), st.sampled_from(["en", "zh"]), st.integers(1, 5))
def test_a_sentence_names_no_item_outside_the_history(fitted, steps, language, k):
    recommender = fitted()
    history = [f"i{step}" for step in steps]
    mine = {f"film number{step} kind{step // 2}" for step in steps}
    for place in recommender.recommend(history=history, k=k, explain=True, language=language).items:
        said = place.because
        for title in mine:
            said = said.replace(title, "")
        assert "film" not in said
        assert {reason.item_id for reason in of_kind(place.reasons, "history")} <= set(history)


def test_a_word_leaves_a_text_wherever_it_stands():
    assert words_of("Toy Story (1995). genres: Animation, Toy") == ["Toy", "Story", "1995", "genres", "Animation"]
    assert without_word("Toy Story, a toy Toy", "Toy") == "Story, a toy"
    assert words_of("电子产品 手机") == ["电子", "产品", "手机"]
    assert without_word("电子产品 手机", "产品") == "电子 手机"


def test_reasons_do_not_depend_on_who_else_is_asked(fitted):
    recommender = fitted()
    users = ["u01", "u02", "u03"]
    together = recommender.recommend_users(users, k=2, explain=True)
    for user, ranked in zip(users, together, strict=True):
        alone = recommender.recommend(user, k=2, explain=True)
        for one, other in zip(alone.items, ranked.items, strict=True):
            assert one.because == other.because
            numbers = [[r.contribution or 0.0 for r in place.reasons] for place in (one, other)]
            np.testing.assert_allclose(*numbers, atol=1e-6)
