"""Whatever happened to the catalogue, and whoever searches: what may not be shown is not, and caps hold."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recloom.models import VectorModel
from recloom.retrieval import (
    ApproximateIndex,
    Availability,
    Boost,
    Catalogue,
    Rules,
    Search,
    arrange,
    arrangement,
    item_table,
    search,
)

ITEMS, SPARE, WIDTH = 30, 5, 4
CATEGORIES = ["a", "b", "c", "a|b", ""]
IDS = [f"i{number}" for number in range(1, ITEMS + SPARE + 1)]


@pytest.fixture(scope="module", autouse=True)
def small_limits():
    """Have a small catalogue go all the ways of a large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "FEW_ALLOWED", 0)
        patch.setattr(search, "MARGIN", 2)
        patch.setattr(arrangement, "LEAST_POOL", 3)
        patch.setattr(arrangement, "POOL", 1)
        yield


class Vectors(VectorModel):
    """A model that is a table of vectors: a query is one of them."""

    name = "vectors"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, vectors_ID: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.vectors_ID = vectors_ID

    def item_vectors(self, item_index=None):
        return self.vectors_ID if item_index is None else self.vectors_ID[item_index]

    def similarity_vectors(self, item_index=None):
        return self.item_vectors(item_index)

    def queries(self, histories):
        return self.vectors_ID[torch.from_numpy(histories.item_index_BL[:, -1]).long()]

    def read_items(self, item_index, embedding_NE):
        self.vectors_ID[item_index] = embedding_NE.double()


def new_search(is_approximate, num_items=ITEMS, seed=0):
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.normal(size=(num_items + SPARE + 1, WIDTH)))
    vectors[0] = 0
    found = Search(Vectors(vectors))
    if is_approximate:
        queries = rng.normal(size=(50, WIDTH)).astype(np.float32)
        found.index = ApproximateIndex(found.item_vectors, queries, 0.5)
        found.index.outdate(range(num_items + 1, num_items + SPARE + 1))
    return found


@dataclass
class Shop:
    """A catalogue, and beside it what a person would say of every item."""

    search: Search
    columns: dict[str, dict] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    unplaced: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for number in range(ITEMS):
            self.columns[IDS[number]] = {"category": CATEGORIES[number % 5], "price": float(number % 7)}
        rows = [{"item_id": item, **values, "available_until": ""} for item, values in self.columns.items()]
        table = pl.DataFrame(rows)
        self.catalogue = Catalogue(table, ["", *self.columns], SPARE, Availability())

    def put(self, item, values):
        row = self.catalogue.put(item, values, item)
        if item not in self.columns:
            self.unplaced.add(item)
        if not self.catalogue.placed_mask[row]:
            self.unplaced.add(item)
        self.columns[item] = values
        self.withdrawn.discard(item)

    def place(self, item):
        if row := self.catalogue.row_of(item):
            self.search.read_items([row], np.full((1, WIDTH), row / 10, dtype=np.float32))
            self.catalogue.place([row])
            self.unplaced.discard(item)

    def withdraw(self, item):
        self.catalogue.withdraw(item)
        if item in self.columns:
            self.withdrawn.add(item)

    def may_show(self, item, rules, now, seen):
        values = self.columns[item]
        price = values.get("price")
        until = values.get("available_until")
        return (
            item not in self.withdrawn | self.unplaced | set(rules.deny) | seen
            and (rules.allow is None or item in rules.allow)
            and ("price" not in rules.where or (price is not None and price < rules.where["price"]["<"]))
            and ("category" not in rules.where or bool({"a"} & set(values.get("category", "").split("|"))))
            and (until is None or until > now)
        )

    def list_of(self, rules, k, now, seen, query):
        allowed = rules.allowed_mask(self.catalogue, now)
        allowed[[self.catalogue.row_of(item) for item in seen]] = False
        query_BD = torch.from_numpy(query)[None]
        hits = self.search.search_vectors(query_BD, [allowed], [rules.boosted(self.catalogue)])[0]
        rows, scores = arrange(hits, k, rules, self.catalogue, allowed, self.search.unit_vectors)
        return [self.catalogue.ids[row] for row in rows], scores


items = st.sampled_from(IDS)
values = st.fixed_dictionaries(
    {"category": st.sampled_from(CATEGORIES)},
    optional={"price": st.integers(0, 9).map(float), "available_until": st.integers(900, 1_100)},
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), items, values),
        st.tuples(st.just("place"), items),
        st.tuples(st.just("withdraw"), items),
    ),
    max_size=15,
)
rules = st.builds(
    Rules,
    allow=st.none() | st.lists(items, max_size=20).map(tuple),
    deny=st.lists(items, max_size=5).map(tuple),
    where=st.fixed_dictionaries(
        {},
        optional={
            "price": st.integers(1, 8).map(lambda price: {"<": float(price)}),
            "category": st.just({"in": ["a"]}),
        },
    ),
    max_per=st.fixed_dictionaries({}, optional={"category": st.integers(1, 3), "price": st.integers(1, 3)}),
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    pinned=st.lists(items, max_size=4, unique=True).map(tuple),
    boosts=st.lists(
        st.builds(Boost, weight=st.sampled_from([0.1, 10.0]), items=st.lists(items, min_size=1, max_size=3).map(tuple)),
        max_size=2,
    ).map(tuple),
)


def groups(shop, item, rules):
    said = shop.columns[item]
    found = []
    if "category" in rules.max_per:
        found += [("category", part) for part in said.get("category", "").split("|") if part]
    if "price" in rules.max_per and said.get("price") is not None:
        found.append(("price", said["price"]))
    return found


@pytest.mark.parametrize(("is_approximate", "is_rounded"), [(False, False), (False, True), (True, False), (True, True)])
@settings(max_examples=100, deadline=None)
@given(
    happened=steps,
    asked=st.lists(st.tuples(rules, st.integers(1, 12), st.integers(950, 1_050), st.sets(items, max_size=6)),
                   min_size=1, max_size=3),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_no_sequence_of_changes_and_rules_shows_what_may_not_be_shown(
    is_approximate, is_rounded, happened, asked, seed
):
    if is_approximate:
        pytest.importorskip("faiss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_table, "MANY_VALUES", 0 if is_rounded else np.inf)
        shop = Shop(new_search(is_approximate, seed=seed))
    query = np.random.default_rng(seed).normal(size=WIDTH)
    for step in [None, *happened]:
        if step is not None:
            name, *arguments = step
            getattr(shop, name)(*arguments)
        # Asked after each step, so that answers which were kept from before would show.
        for obeyed, k, now, seen in asked:
            check(shop, obeyed, k, now, seen, query)


def check(shop, obeyed, k, now, seen, query):
    shown, scores = shop.list_of(obeyed, k, now, seen, query)
    open_items = {item for item in shop.columns if shop.may_show(item, obeyed, now, seen)}
    assert set(shown) <= open_items
    assert len(set(shown)) == len(shown) <= k
    counts: dict = {}
    for item in shown:
        for group in groups(shop, item, obeyed):
            counts[group] = counts.get(group, 0) + 1
    assert all(count <= obeyed.max_per[name] for (name, _), count in counts.items())
    pinned = [item for item, score in zip(shown, scores, strict=True) if np.isinf(score)]
    assert pinned == shown[: len(pinned)]
    assert pinned == [item for item in obeyed.pinned if item in pinned]
    if not obeyed.max_per:
        assert pinned == [item for item in obeyed.pinned if item in open_items][:k]
        assert len(shown) == min(k, len(open_items))
    if not obeyed.diversity:
        assert list(scores) == sorted(scores, reverse=True)
    if len(shown) < k:  # a list is short only when nothing more fits
        for item in open_items - set(shown):
            assert any(counts.get(group, 0) >= obeyed.max_per[group[0]] for group in groups(shop, item, obeyed))


# Exactness


@pytest.mark.parametrize("many_values", [0, np.inf], ids=["rounded", "single precision"])
@pytest.mark.parametrize("seed", range(5))
def test_exact_search_finds_the_order_of_double_precision(seed, many_values, monkeypatch):
    monkeypatch.setattr(item_table, "MANY_VALUES", many_values)
    rng = np.random.default_rng(seed)
    # Many items that single precision cannot tell apart.
    vectors = torch.from_numpy(rng.normal(size=(500, WIDTH)))
    vectors[100:400] = vectors[100] + torch.from_numpy(rng.normal(scale=1e-9, size=(300, WIDTH)))
    query = vectors[100].clone()
    allowed = np.ones(500, dtype=bool)
    allowed[[0, 7, 150]] = False
    found = Search(Vectors(vectors)).search_vectors(query[None], [allowed], [None])[0]
    scores = np.where(allowed, (vectors @ query).float().numpy(), -np.inf)
    order = np.lexsort((np.arange(500), -scores))
    for k in (1, 10, 60, 450, 600):
        rows, got = found.best(k)
        assert rows.tolist() == order[: min(k, 497)].tolist()
        assert got.tolist() == scores[rows].tolist()


def test_boosts_add_the_logarithm_of_their_weight():
    shop = Shop(new_search(False))
    rules = Rules(boosts=(Boost(weight=8.0, items=("i3",)), Boost(column="price", where={"price": {"=": 3.0}})))
    rows, change = rules.boosted(shop.catalogue)
    changes = dict(zip(rows.tolist(), change.tolist(), strict=True))
    assert changes[3] == pytest.approx(np.log(8))
    assert changes[4] == pytest.approx(np.log(3))  # i4 costs 3
    assert 5 not in changes


# Approximate search


@pytest.fixture(scope="module")
def large():
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 16))
    vectors = centres[rng.integers(0, 40, 20_001)] + 0.4 * rng.normal(size=(20_001, 16))
    vectors[0] = 0
    queries = (centres[rng.integers(0, 40, 300)] + 0.4 * rng.normal(size=(300, 16))).astype(np.float32)
    found = Search(Vectors(torch.from_numpy(vectors)))
    found.index = ApproximateIndex(found.item_vectors, queries[:200], 0.95)
    return found, vectors, queries


def recall_of(found, vectors, queries, allowed, k=10):
    hits = []
    for query in queries.astype(float):
        rows, _ = found.search_vectors(torch.from_numpy(query)[None], [allowed], [None])[0].best(k)
        scores = np.where(allowed, vectors @ query, -np.inf)
        hits.append(len(np.intersect1d(rows, np.argsort(-scores)[:k])) / k)
    return np.mean(hits)


def test_the_recall_of_approximate_search_is_as_wanted_and_as_reported(large):
    found, vectors, queries = large
    assert found.index.recall >= 0.95
    allowed = np.ones(len(vectors), dtype=bool)
    allowed[0] = False
    assert recall_of(found, vectors, queries[:200], allowed) >= found.index.recall - 0.02
    assert recall_of(found, vectors, queries[200:], allowed) >= 0.9  # on queries it was not tuned with


@pytest.mark.parametrize("share", [0.5, 0.02, 0.0005])
def test_approximate_search_under_filters_shows_full_lists_of_what_is_allowed(large, share):
    found, vectors, queries = large
    allowed = np.random.default_rng(2).random(len(vectors)) < share
    allowed[0] = False
    for query in queries[:40].astype(float):
        rows, scores = found.search_vectors(torch.from_numpy(query)[None], [allowed], [None])[0].best(10)
        assert allowed[rows].all()
        assert len(rows) == min(10, allowed.sum())
        assert scores.tolist() == (vectors[rows] @ query).astype(np.float32).tolist()
    assert recall_of(found, vectors, queries[:40], allowed) >= 0.85


def test_items_that_changed_are_found_where_they_are_now():
    pytest.importorskip("faiss")
    found = new_search(True, num_items=2_000)
    query = np.array([1.0, 0, 0, 0])
    found.read_items([1_999], np.array([[50.0, 0, 0, 0]], dtype=np.float32))
    allowed = np.ones(2_000 + SPARE + 1, dtype=bool)
    allowed[0] = False
    rows, scores = found.search_vectors(torch.from_numpy(query)[None], [allowed], [None])[0].best(3)
    assert (rows[0], scores[0]) == (1_999, 50.0)
    assert len(found.index.outdated) > 1


# Arranging


def test_diversity_and_caps_together_fill_the_list_as_far_as_anything_fits():
    said = ["a", "c", "c", "c", "c", "a", "c"]
    table = pl.DataFrame({"item_id": [f"i{n}" for n in range(1, 8)], "kind": said})
    catalogue = Catalogue(table, ["", *said], 0, Availability())
    allowed = np.arange(8) > 0
    hits = search.Hits.of_scores(np.array([0, 9, 8, 7, 6, 5, 4, 3], dtype=np.float32), allowed, None)
    rules = Rules(max_per={"kind": 2}, diversity=0.1)
    rows, _ = arrange(hits, 4, rules, catalogue, allowed, lambda rows: np.eye(8, dtype=np.float32)[rows])
    assert sorted(rows.tolist()) == [1, 2, 3, 6]


# What a catalogue remembers


def test_answers_to_conditions_take_only_so_much_memory(monkeypatch):
    monkeypatch.setattr("recloom.retrieval.catalogue.MOST_MASK_BYTES", 50_000)
    table = pl.DataFrame({"item_id": [f"i{n}" for n in range(10_000)], "price": np.arange(10_000.0)})
    catalogue = Catalogue(table, ["", *table["item_id"]], 0, Availability())
    for _ in range(2):
        for price in range(20):
            asked = {"price": {"<": price}}
            assert catalogue.mask(asked).sum() == price
            assert catalogue.mask(asked) is catalogue.mask(asked)
            assert catalogue.mask({"price": {"<": 0}}).sum() == 0  # asked for again and again, it stays
            assert sum(mask.nbytes for mask in catalogue._masks.values()) < 50_000
    assert len(catalogue._masks) == 4
    catalogue.put("i7", {"price": 0.0}, "")
    assert catalogue.mask({"price": {"<": 7}}).sum() == 8
    monkeypatch.setattr("recloom.retrieval.catalogue.MOST_MASK_BYTES", 1)
    assert catalogue.mask({"price": {"<": 9}}) is catalogue.mask({"price": {"<": 9}})


def test_titles_are_found_as_they_were_when_the_search_began():
    table = pl.DataFrame({"item_id": ["a1", "B2", "c3"]})
    catalogue = Catalogue(table, ["", "Grüne Straße", "grüne LAMPE", "C++ (lamp)"], 2, Availability())
    before = catalogue.titles_now()
    for words, rows in (
        ([], [1, 2, 3]),
        (["grüne"], [1, 2]),
        (["strasse"], [1]),
        (["lamp", "b2"], [2]),
        (["c++ ("], [3]),
    ):
        assert before.rows_with(words).tolist() == rows
    catalogue.put("a1", {}, "Lamp")
    catalogue.put("new", {}, "Red LAMP")
    after = catalogue.titles_now()
    assert after.rows_with(["lamp"]).tolist() == [1, 2, 3, 4]
    assert after.rows_with(["strasse"]).tolist() == []
    assert before.rows_with(["lamp"]).tolist() == [2, 3]
