"""What rounded products may be off by is known, whatever the vectors are like."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recloom.retrieval import item_table
from recloom.retrieval.item_table import LARGEST, RoundedTable, WholeTable

ITEMS, WIDTH, WIDE = 3_000, 40, 3


@pytest.fixture
def vectors():
    """Unit vectors, a coordinate that nobody has, and three that are a hundred times as large, as popularity's are."""
    rng = np.random.default_rng(0)
    vectors_ID = rng.normal(size=(ITEMS, WIDTH))
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    vectors_ID[:, 5] = 0
    vectors_ID[:, -WIDE:] *= 100
    vectors_ID[0] = 0
    return torch.from_numpy(vectors_ID)


@pytest.fixture
def queries():
    query_BD = np.random.default_rng(1).normal(size=(20, WIDTH)) * 14
    query_BD[:, -WIDE:] /= 50
    query_BD[3] = 0
    return torch.from_numpy(query_BD)


def table_of(vectors_ID):
    return RoundedTable(SimpleNamespace(item_vectors=lambda rows_N: vectors_ID[rows_N]), vectors_ID.clone())


def wrong_and_bound(table, vectors_ID, query_BD, rows_N=None):
    product_BN, error_B = table.rough(query_BD, rows_N)
    exact_BN = query_BD @ (vectors_ID if rows_N is None else vectors_ID[rows_N]).T
    return (product_BN - exact_BN).abs().amax(dim=1), error_B


@pytest.mark.parametrize("rows", [None, [7], [5, 2_999, 5]])
def test_products_are_no_further_off_than_is_said(vectors, queries, rows):
    rows_N = None if rows is None else torch.tensor(rows)
    wrong_B, error_B = wrong_and_bound(table_of(vectors), vectors, queries, rows_N)
    assert (wrong_B <= error_B).all()
    assert error_B[3] < 1e-5  # a query of zeros


def test_the_bound_is_narrow_although_some_coordinates_are_wide(vectors, queries):
    """A tenth of what a score varies by among items; at a step for all coordinates it would be three times that."""
    _, error_B = wrong_and_bound(table_of(vectors), vectors, queries)
    spread_B = (queries[:, :-WIDE] @ vectors[:, :-WIDE].T).std(dim=1)
    assert (error_B <= 0.3 * spread_B + 1e-4).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_size_of_vectors_and_queries_does_not_matter(vectors, queries, scale):
    wrong_B, error_B = wrong_and_bound(table_of(vectors * scale), vectors * scale, queries / scale)
    assert (wrong_B <= error_B).all()
    assert error_B.max() < 10


@pytest.mark.parametrize(
    ("column", "value"), [(0, 50.0), (5, 0.1), (WIDTH - 1, 1e4)], ids=["far outside", "was zero", "wide"]
)
def test_a_vector_that_comes_later_may_lie_anywhere(vectors, queries, column, value):
    table = table_of(vectors)
    vectors[[9, 10], column] = value
    table.read(torch.tensor([9, 10]))
    wrong_B, error_B = wrong_and_bound(table, vectors, queries)
    assert (wrong_B <= error_B).all()
    assert torch.equal(table.exact(torch.tensor([9])), vectors[[9]])
    assert torch.equal(table.whole(), vectors.float())


def test_vectors_of_zeros_have_products_of_zero(queries):
    wrong_B, error_B = wrong_and_bound(
        table_of(torch.zeros(5, WIDTH).double()), torch.zeros(5, WIDTH).double(), queries
    )
    assert wrong_B.max() == 0
    assert error_B.max() < 1e-2


def test_the_largest_numbers_do_not_overflow():
    """Processors without products of four pairs add two of them up in 16 bits."""
    vectors_ID = torch.ones(64, 4_096).double()
    table = table_of(vectors_ID)
    assert int(table._code_ID.max()) == LARGEST
    wrong_B, error_B = wrong_and_bound(table, vectors_ID, -torch.ones(2, 4_096).double())
    assert (wrong_B <= error_B).all()
    assert wrong_B.max() < 1


def test_small_catalogues_stay_in_single_precision(vectors, monkeypatch):
    model = SimpleNamespace(item_vectors=lambda: vectors)
    assert type(item_table.item_table(model)) is WholeTable
    monkeypatch.setattr(item_table, "MANY_VALUES", ITEMS * WIDTH)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert type(item_table.item_table(model)) is RoundedTable
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert type(item_table.item_table(model)) is WholeTable
