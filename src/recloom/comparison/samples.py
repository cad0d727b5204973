"""A few people with what each model would show them, and a map of what the items say.

Shapes: B cases, K cutoff, I catalogue (with the padding row), E width of text embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recloom.dataset import Cases, Dataset
from recloom.encoders import item_titles
from recloom.evaluation.categories import category_column, category_words
from recloom.models import ItemText, Rankings

SAMPLE_USERS = 6
SHOWN_HISTORY = 8
SHOWN_LIST = 5
MAPPED_ITEMS = 800
"""Items on the map, the most taken ones."""
FEWEST_ITEMS = 10


@dataclass(frozen=True)
class Sample:
    """One test case, as people see it."""

    user_id: str
    history: list[str]
    """Titles, the newest last; earlier ones are left out."""
    left_out: int
    """Interactions before those."""
    target: str
    lists: dict[str, list[tuple[str, bool]]]
    """By model: titles, and whether each is what the person took next."""


@dataclass(frozen=True)
class ItemMap:
    """Where items stand to each other by what their text says."""

    column: str | None
    """What the colours stand for."""
    titles: list[str]
    categories: list[str]
    interactions: list[int]
    x: list[float]
    y: list[float]


def sample_users(dataset: Dataset, cases: Cases, lists: Mapping[str, Rankings], seed: int = 0) -> list[Sample]:
    """Choose some test cases at random and write them out."""
    names = ["", *(title or id_ for title, id_ in zip(item_titles(dataset.item_table), dataset.items.ids, strict=True))]
    chosen = np.sort(np.random.default_rng(seed).choice(len(cases), min(SAMPLE_USERS, len(cases)), replace=False))
    samples = []
    for case in chosen:
        start, end = int(cases.history_start[case]), int(cases.history_end[case])
        shown = dataset.item_index[max(start, end - SHOWN_HISTORY) : end]
        target = int(dataset.item_index[cases.target[case]])
        samples.append(
            Sample(
                user_id=dataset.users.id_of(int(cases.user_index[case])),
                history=[names[item] for item in shown],
                left_out=end - start - len(shown),
                target=names[target],
                lists={
                    label: [
                        (names[item], item == target)
                        for item in rankings.item_index_BK[case, :SHOWN_LIST].tolist()
                        if item
                    ]
                    for label, rankings in lists.items()
                },
            )
        )
    return samples


def map_items(dataset: Dataset, text: ItemText, counts_I: np.ndarray, category: str | None) -> ItemMap | None:
    """Lay the most taken items out in the plane, so that texts that mean the same are near each other (t-SNE).

    Source: van der Maaten and Hinton (2008), https://jmlr.org/papers/v9/vandermaaten08a.html.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE  # takes a second to import

    has_text_I = np.abs(text.leading_vectors).max(axis=1) > 0
    items = np.argsort(-counts_I, kind="stable")
    items = items[has_text_I[items]][:MAPPED_ITEMS]
    # Where all texts are the same there is nothing to lay out, and t-SNE ends the process.
    if len(items) < FEWEST_ITEMS or not np.ptp(text.leading_vectors[items], axis=0).any():
        return None
    vectors = PCA(min(50, len(items), text.leading_vectors.shape[1]), random_state=0).fit_transform(
        text.leading_vectors[items]
    )
    place = TSNE(perplexity=min(30, len(items) // 4), random_state=0, n_jobs=1).fit_transform(vectors)
    column = category or category_column(dataset)
    words = category_words(dataset.item_table[column]).to_list() if column else [""] * len(dataset.items)
    return ItemMap(
        column=column,
        titles=[text.titles[item] or dataset.items.id_of(int(item)) for item in items],
        categories=[(words[item - 1] or "").split("|")[0] or "none" for item in items],
        interactions=[int(counts_I[item]) for item in items],
        x=[round(float(x), 2) for x in place[:, 0]],
        y=[round(float(y), 2) for y in place[:, 1]],
    )
