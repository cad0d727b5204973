"""Hold every classic model against an independent implementation on the same split, and print the table.

    python benchmarks/classic_models.py DATASET [--only item-knn,ease]

DATASET is a folder that `recloom prepare` wrote. Leave-one-out, file order, full ranking without seen items; both sides
learn from the same interactions, get the same histories and are scored by recloom's metric. The other side is LensKit,
implicit or scikit-learn where one of them has the model, and otherwise its formulas once more below, written as plainly
as they go and without a line of recloom. Rows of a library that is not installed are left out; the line that says so
names what to install.
"""

import argparse
import itertools
import math
import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LK_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402 - the number of threads is set before anything starts some
import polars as pl  # noqa: E402
import torch  # noqa: E402
from scipy import sparse  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from recloom import Dataset, Recommender  # noqa: E402
from recloom.dataset import SplitConfig, split_dataset  # noqa: E402
from recloom.encoders import item_texts  # noqa: E402
from recloom.evaluation import metric_values  # noqa: E402
from recloom.models import CountedModel, TrainingData  # noqa: E402
from recloom.training import hardware, versions  # noqa: E402

K = 10
WHOLE = 100_000
"""A history length, number of neighbours or half-life so large that nothing is cut off or weighed less."""
PLAIN_COSINE = {"shrinkage": 0.0, "half_life": float(WHOLE) ** 2, "max_length": WHOLE}
"""Neighbours as the libraries compare them: no shrinkage, and old interactions count like new ones."""
LIBRARIES = {"lenskit": "lenskit==2025.8.1", "implicit": "implicit==0.7.3", "scikit-learn": "scikit-learn"}


class Data:
    """The split in the forms that the other side reads."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        split = split_dataset(dataset, SplitConfig(protocol="leave-one-out"))
        self.split, self.test = split, split.test
        self.num_items = len(dataset.items)
        positions = split.full.positions()
        users = np.repeat(np.arange(len(split.full.start)), split.full.end - split.full.start)
        self.log = pl.DataFrame(
            {"user": users, "item": dataset.item_index[positions], "time": dataset.timestamp[positions]}
        )
        self.sequences = {
            user: dataset.item_index[start:end].tolist()
            for user, (start, end) in enumerate(zip(split.full.start, split.full.end, strict=True))
            if end > start
        }
        self.ended = {user: int(dataset.timestamp[split.full.end[user] - 1]) for user in self.sequences}
        self.histories = self.histories_of(split.test)
        self.taken = _sets([self.sequences.get(user, []) for user in range(len(split.full.start))], self.num_items)
        self.asked = _sets(self.histories, self.num_items)
        self.popularity = np.bincount(self.log["item"], minlength=self.num_items + 1)

    def histories_of(self, cases: Any) -> list[list[int]]:
        ends = zip(cases.history_start, cases.history_end, strict=True)
        return [self.dataset.item_index[start:end].tolist() for start, end in ends]

    def ndcg(self, items_BK: np.ndarray, cases: Any = None) -> float:
        cases = self.test if cases is None else cases
        target_B = self.dataset.item_index[cases.target]
        return float(metric_values(items_BK, target_B, [K])[f"NDCG@{K}"].mean())


def _sets(baskets: list[list[int]], num_items: int) -> sparse.csr_matrix:
    rows = np.repeat(np.arange(len(baskets)), [len(basket) for basket in baskets])
    columns = np.concatenate([np.array(basket, dtype=int) for basket in baskets])
    taken = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(baskets), num_items + 1))
    taken.data[:] = 1
    return taken


def best(scores: np.ndarray, history: list[int], popularity: np.ndarray | None = None) -> np.ndarray:
    """Return the items with the highest scores, seen ones left out.

    Ties go to the lower index, but among items with score 0 to the more popular, where popularity is given.
    """
    first = np.zeros(len(scores)) if popularity is None else np.where(scores == 0, popularity, 0)
    order = np.lexsort((np.arange(len(scores)), -first, -scores))
    return order[~np.isin(order, [0, *history])][:K]


@dataclass
class Row:
    """What one comparison came to."""

    model: str
    other: str
    ours: float
    theirs: float
    agree: float | None = None
    ratio: float | None = None
    note: str = ""

    def __str__(self) -> str:
        agree = "" if self.agree is None else f"{100 * self.agree:.2f} %"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            f"| {self.model} | {self.other} | {self.ours:.4f} | {self.theirs:.4f} | {agree} | {ratio} | {self.note} |"
        )


def timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    """Return what comes of fitting and the seconds it takes, the least of three times if it is quick."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 5:
        began = time.perf_counter()
        fitted = fit()
        seconds.append(time.perf_counter() - began)
    return fitted, min(seconds)


def ours(data: Data, model: str, tables: dict | None = None, **options: Any) -> tuple[Recommender, np.ndarray]:
    settings = {"split": {"protocol": "leave-one-out"}, "encoder": {"name": "none"}, "model": options} | (tables or {})
    recommender = Recommender.fit(data.dataset, model, settings=settings)
    return recommender, recommender.rank_cases(data.test, K, include_seen=False).item_index_BK


def compared(
    data: Data,
    model: str,
    other: str,
    theirs: np.ndarray,
    seconds: float | None = None,
    note: str = "",
    tables: dict | None = None,
    **options: Any,
) -> Row:
    """Fit our model and hold its lists against the other's."""
    recommender, lists = ours(data, model, tables, **options)
    ratio = None
    if seconds is not None:
        assert isinstance(recommender.model, CountedModel)
        learned = TrainingData(data.dataset, data.split.full)
        ratio = timed(lambda: recommender.model.count(learned))[1] / seconds
    agree = float((lists == theirs).mean())
    return Row(model, other, data.ndcg(lists), data.ndcg(theirs), agree, ratio, note)


# LensKit


def lenskit_lists(data: Data, scorer: Any, fill: bool = True) -> tuple[np.ndarray, float]:
    """Train a scorer of LensKit, and make lists of its scores."""
    from lenskit.data import ItemList, RecQuery, from_interactions_df

    pairs = data.log.unique(["user", "item"], maintain_order=True).to_pandas()
    known = from_interactions_df(pairs.rename(columns={"user": "user_id", "item": "item_id"}))
    all_items = ItemList(item_ids=np.arange(data.num_items + 1))
    _, seconds = timed(lambda: scorer.train(known))
    by_history = "query" in scorer.__call__.__annotations__
    lists = []
    for user, history in zip(data.test.user_index, data.histories, strict=True):
        # The item model of LensKit breaks down at an item that it was not trained on.
        trained = [item for item in history if data.popularity[item]]
        query = RecQuery(user_id=int(user), history_items=ItemList(item_ids=trained))
        scored = scorer(query, all_items) if by_history else scorer(all_items)
        scores = np.nan_to_num(scored.scores(), nan=0.0)
        lists.append(best(scores, history, data.popularity if fill else None))
    return np.stack(lists), seconds


def lenskit_rows(data: Data, model: str) -> Iterator[Row]:
    from lenskit.basic import PopScorer
    from lenskit.knn import EASEScorer, ItemKNNScorer, UserKNNScorer

    if model == "popular":
        lists, _ = lenskit_lists(data, PopScorer(score="count"))
        yield compared(data, model, "LensKit PopScorer", lists)
    if model == "item-knn":
        for neighbours, note in ((WHOLE, "all neighbours"), (100, "100 neighbours")):
            scorer = ItemKNNScorer(max_nbrs=WHOLE, save_nbrs=min(neighbours, data.num_items), feedback="implicit")
            lists, seconds = lenskit_lists(data, scorer)
            yield compared(
                data, model, "LensKit ItemKNNScorer", lists, seconds, note, neighbours=neighbours, **PLAIN_COSINE
            )
    if model == "user-knn":
        for neighbours, note in ((WHOLE, "all neighbours"), (100, "100 neighbours: theirs for each item, ours in all")):
            lists, _ = lenskit_lists(data, UserKNNScorer(max_nbrs=neighbours, feedback="implicit"))
            yield compared(
                data, model, "LensKit UserKNNScorer", lists, note=note, neighbours=neighbours, **PLAIN_COSINE
            )
    if model == "ease":
        lists, seconds = lenskit_lists(data, EASEScorer(regularization=200.0), fill=False)
        yield compared(data, model, "LensKit EASEScorer", lists, seconds, max_length=WHOLE)


# implicit


def implicit_rows(data: Data, model: str) -> Iterator[Row]:
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from implicit.nearest_neighbours import CosineRecommender

    def fit(library_model: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a conversion of its own
            library_model.fit(data.taken, show_progress=False)
        return library_model

    users = data.test.user_index
    if model == "item-knn":
        for neighbours, note in ((WHOLE, "all neighbours"), (100, "100 neighbours")):
            # Each item is among its own neighbours there.
            kept = min(neighbours, data.num_items) + 1
            other, seconds = timed(lambda kept=kept: fit(CosineRecommender(K=kept)))
            lists = np.stack([other.recommend(0, row, N=K)[0] for row in data.asked])
            yield compared(
                data, model, "implicit CosineRecommender", lists, seconds, note, neighbours=neighbours, **PLAIN_COSINE
            )
    if model == "mf":
        options = {"factors": 64, "regularization": 0.01}
        other, seconds = timed(lambda: fit(AlternatingLeastSquares(alpha=10.0, random_state=0, **options)))
        lists = other.recommend(users, data.asked, N=K, recalculate_user=True)[0]
        note = "user computed from the history on both sides"
        kept = {"algorithm": "als", "max_length": WHOLE} | options
        yield compared(data, model, "implicit ALS", lists, seconds, note, **kept)
        lists = other.recommend(users, data.asked, N=K)[0]
        note = "theirs: the user as it was trained"
        yield compared(data, model, "implicit ALS", lists, None, note, **kept)
        other, seconds = timed(
            lambda: fit(BayesianPersonalizedRanking(iterations=100, random_state=0, num_threads=1, **options))
        )
        lists = other.recommend(users, data.asked, N=K)[0]
        kept["algorithm"] = "bpr"
        yield compared(data, model, "implicit BPR", lists, seconds, note, **kept)


# Formulas, once more


def transcribed_rows(data: Data, model: str) -> Iterator[Row]:
    if model == "popular-recent":
        since = data.log["time"].max() - 7 * 86_400
        recent = data.log.filter(pl.col("time") > since)["item"].to_list()
        counted = Counter(recent)
        scores = np.array([counted[item] for item in range(data.num_items + 1)], dtype=float)
        order = np.lexsort((np.arange(len(scores)), -data.popularity, -scores))
        lists = np.stack([order[~np.isin(order, [0, *history])][:K] for history in data.histories])
        yield compared(data, model, "a count in polars", lists)
    if model == "item-knn":
        yield compared(data, model, "dense numpy", item_knn(data, 100, 10.0, 3.0, 100), note="defaults")
    if model == "user-knn":
        yield compared(data, model, "dense numpy", user_knn(data, 100, 10.0, 10.0, 100), note="defaults")
    if model == "ease":
        lists, seconds = ease(data, 200.0)
        yield compared(data, model, "numpy, the closed form", lists, seconds, max_length=WHOLE)
    if model == "markov":
        lists = markov(data)
        yield compared(data, model, "a crosstab in polars", lists)
    if model == "vsknn":
        for idf, note in ((True, "rarity by interactions"), (False, "rarity of session-rec: 1 + by sessions")):
            yield compared(data, model, "plain Python", vsknn(data, idf), note=note)
    if model == "stan":
        for newest, note in ((True, ""), (False, "distance from the shared item last in the neighbour")):
            yield compared(data, model, "plain Python", stan(data, newest), note=note)
    if model == "random":
        gain = sum(1 / math.log2(rank + 1) for rank in range(1, K + 1))
        expected = float(np.mean([gain / (data.num_items - len(set(history))) for history in data.histories]))
        by_seed = [data.ndcg(ours(data, model, seed=seed)[1]) for seed in range(20)]
        error = np.std(by_seed, ddof=1) / math.sqrt(len(by_seed))
        note = f"mean of 20 seeds, standard error {error:.4f}"
        yield Row(model, "its expected value", float(np.mean(by_seed)), expected, note=note)


def half_lives(history: list[int], half_life: float, length: int) -> tuple[list[int], np.ndarray]:
    """Return the newest items of a history, and what each counts."""
    newest = history[-length:]
    return newest, 0.5 ** (np.arange(len(newest))[::-1] / half_life)


def item_knn(data: Data, neighbours: int, shrinkage: float, half_life: float, length: int) -> np.ndarray:
    together = np.asarray((data.taken.T @ data.taken).todense(), dtype=np.float64)
    size = np.sqrt(np.diag(together))
    alike = together / (np.outer(size, size) + shrinkage)
    np.fill_diagonal(alike, 0)
    for row in alike:
        row[np.argsort(-row, kind="stable")[neighbours:]] = 0
    lists = []
    for history in data.histories:
        newest, weights = half_lives(history, half_life, length)
        lists.append(best(weights @ alike[newest], history, data.popularity))
    return np.stack(lists)


def user_knn(data: Data, neighbours: int, shrinkage: float, half_life: float, length: int) -> np.ndarray:
    taken = np.asarray(data.taken.todense(), dtype=np.float64)
    lists = []
    for history in data.histories:
        newest, weights = half_lives(history, half_life, length)
        person = np.zeros(taken.shape[1])
        person[newest] = weights
        alike = taken @ person / (np.linalg.norm(taken, axis=1) * np.linalg.norm(person) + shrinkage)
        nearest = np.argsort(-alike, kind="stable")[:neighbours]
        lists.append(best(alike[nearest] @ taken[nearest], history, data.popularity))
    return np.stack(lists)


def ease(data: Data, regularization: float) -> tuple[np.ndarray, float]:
    def fit() -> np.ndarray:
        gram = (data.taken.T @ data.taken).toarray().astype(np.float64)
        inverse = np.linalg.inv(gram + regularization * np.eye(len(gram)))
        weight = inverse / -np.diag(inverse)
        np.fill_diagonal(weight, 0)
        return weight

    weight, seconds = timed(fit)
    return np.stack([best(weight[history].sum(axis=0), history) for history in data.histories]), seconds


def markov(data: Data) -> np.ndarray:
    follows = (
        data.log.with_columns(after=pl.col("item").shift(-1).over("user"))
        .drop_nulls("after")
        .group_by("item", "after")
        .len()
        .with_columns(share=pl.col("len") / pl.col("len").sum().over("item"))
    )
    share = np.zeros((data.num_items + 1, data.num_items + 1))
    share[follows["item"], follows["after"]] = follows["share"]
    return np.stack([best(share[history[-1]], history, data.popularity) for history in data.histories])


def vsknn(data: Data, by_interactions: bool) -> np.ndarray:
    """Ludewig and Jannach (2018), with the defaults of `vsknn`."""
    neighbours, sample, length = 100, 1_000, 10
    sessions_of, total = defaultdict(set), sum(map(len, data.sequences.values()))
    for session, items in data.sequences.items():
        for item in items:
            sessions_of[item].add(session)
    lists = []
    for history in data.histories:
        current = history[-length:]
        position = {item: place for place, item in enumerate(current, 1)}
        possible = set().union(*(sessions_of[item] for item in current))
        newest = sorted(possible, key=lambda session: (-data.ended[session], -session))[:sample]
        similarity = {}
        for session in newest:
            shared = set(data.sequences[session]) & set(current)
            # In whole numbers, so that equal similarities are equal.
            similarity[session] = sum(position[item] for item in shared)
        scores = np.zeros(data.num_items + 1)
        for session in sorted(newest, key=lambda session: (-similarity[session], session))[:neighbours]:
            items = set(data.sequences[session])
            step = next(step for step, item in enumerate(reversed(current), 1) if item in items)
            for item in items:
                if by_interactions:
                    rarity = math.log(total / data.popularity[item])
                else:
                    rarity = 1 + math.log(len(data.sequences) / len(sessions_of[item]))
                scores[item] += similarity[session] / len(current) / step * rarity
        lists.append(best(scores, history, data.popularity))
    return np.stack(lists)


def stan(data: Data, from_newest_of_history: bool) -> np.ndarray:
    """Garg et al. (2019), with the defaults of `stan`."""
    neighbours, sample, length = 100, 1_000, 20
    position_decay, days_decay, distance_decay = 3.0, 60.0, 3.0
    sessions_of, now = defaultdict(set), max(data.ended.values())
    for session, items in data.sequences.items():
        for item in items:
            sessions_of[item].add(session)
    lists = []
    for history in data.histories:
        current = history[-length:]
        place = {item: number for number, item in enumerate(current)}
        possible = set().union(*(sessions_of[item] for item in current))
        newest = sorted(possible, key=lambda session: (-data.ended[session], -session))[:sample]
        similarity = {}
        for session in newest:
            items = set(data.sequences[session])
            shared = sum(math.exp((place[i] - len(current) + 1) / position_decay) for i in items & set(current))
            age = (now - data.ended[session]) / 86_400
            similarity[session] = shared / math.sqrt(len(items) * len(set(current))) * math.exp(-age / days_decay)
        scores = np.zeros(data.num_items + 1)
        for session in sorted(newest, key=lambda session: (-similarity[session], session))[:neighbours]:
            there = {item: number for number, item in enumerate(data.sequences[session])}
            shared_items = set(there) & set(current)
            star = max(shared_items, key=place.__getitem__ if from_newest_of_history else there.__getitem__)
            for item, number in there.items():
                scores[item] += similarity[session] * math.exp(-abs(number - there[star]) / distance_decay)
        lists.append(best(scores, history, data.popularity))
    return np.stack(lists)


# Text


def text_rows(data: Data, model: str) -> Iterator[Row]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    texts = item_texts(data.dataset.item_table)
    if model == "content-tfidf" and any(texts):
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True).fit_transform(texts)
        alike = np.pad(cosine_similarity(words), ((1, 0), (1, 0)))
        yield compared(data, model, "scikit-learn cosine_similarity", text_lists(data, alike))
    if model == "content" and any(texts):
        tables = {"encoder": {"name": "hashing"}}
        vectors = ours(data, model, tables)[0].model.text_IE.double().numpy()
        centred = vectors - vectors[data.popularity > 0].mean(axis=0)
        alike = cosine_similarity(centred)
        yield compared(data, model, "scikit-learn cosine_similarity", text_lists(data, alike), tables=tables)


def text_lists(data: Data, alike: np.ndarray) -> np.ndarray:
    lists = []
    for history in data.histories:
        newest, weights = half_lives(history, 5.0, 20)
        lists.append(best(weights @ alike[newest], history))
    return np.stack(lists)


# Networks


SEEDS = (0, 1, 2)


def network_rows(data: Data, model: str) -> Iterator[Row]:
    if model == "ncf":
        yield trained(data, model, "plain torch", plain_ncf)
    if model == "two-tower":
        for in_batch, note in ((True, "the same loss"), (False, "theirs: softmax over the whole catalogue")):
            train = partial(plain_two_tower, in_batch=in_batch)
            yield trained(data, model, "plain torch", train, note, max_length=50)


def trained(data: Data, model: str, other: str, train: Callable, note: str = "", **options: Any) -> Row:
    """Train both sides with some seeds, and take each user's mean over them."""
    target_B = data.dataset.item_index[data.test.target]
    sides: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    seconds = [0.0, 0.0]
    for seed in SEEDS:
        recommender, lists = ours(data, model, {"training": {"seed": seed}}, **options)
        seconds[0] += recommender.run.seconds["train"]
        began = time.perf_counter()
        both = lists, train(data, seed)
        seconds[1] += time.perf_counter() - began
        for side, items in zip(sides, both, strict=True):
            side.append(metric_values(items, target_B, [K])[f"NDCG@{K}"])
    difference_B = np.mean(sides[0], axis=0) - np.mean(sides[1], axis=0)
    around = 1.96 * difference_B.std(ddof=1) / math.sqrt(len(difference_B))
    spread = [", ".join(f"{values.mean():.4f}" for values in side) for side in sides]
    said = (
        f"means of {len(SEEDS)} seeds ({spread[0]}; {spread[1]}); difference {difference_B.mean():+.4f} ± {around:.4f}"
    )
    means = [float(np.mean(side)) for side in sides]
    return Row(model, other, *means, ratio=seconds[0] / seconds[1], note="; ".join(filter(None, [note, said])))


def stopped_early(
    network: nn.Module,
    data: Data,
    epoch: Callable[[torch.optim.Optimizer], None],
    score: Callable[[np.ndarray, list[list[int]]], torch.Tensor],
) -> np.ndarray:
    """Train until validation gets no better for 8 epochs; return the test's lists of the best epoch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)

    def lists(cases: Any) -> np.ndarray:
        network.eval()
        histories = data.histories_of(cases)
        with torch.no_grad():
            scores = score(cases.user_index, histories).double().numpy()
        return np.stack([best(row, history) for row, history in zip(scores, histories, strict=True)])

    best_ndcg, since, answer = -1.0, 0, None
    while since < 8:
        network.train()
        epoch(optimizer)
        since += 1
        ndcg = data.ndcg(lists(data.split.validation), data.split.validation)
        if ndcg > best_ndcg:
            best_ndcg, since, answer = ndcg, 0, lists(data.test)
    assert answer is not None
    return answer


def plain_ncf(data: Data, seed: int, width: int = 32) -> np.ndarray:
    """NeuMF of He et al. (2017): a product and a tower; negatives that the user did not take; 1,024 pairs a step."""
    torch.manual_seed(seed)
    num_users, num_items = data.taken.shape
    tables = nn.ModuleList(nn.Embedding(number, width) for number in (num_users, num_items) * 2)
    for table in tables:
        nn.init.normal_(table.weight, std=0.01)
    sizes = (2 * width, width, width // 2, width // 4)
    layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    tower, output = nn.Sequential(*layers), nn.Linear(width + width // 4, 1)
    network = nn.ModuleList([tables, tower, output])
    user_N, item_N = (torch.from_numpy(data.log[name].to_numpy().astype(np.int64)) for name in ("user", "item"))
    candidate_C = torch.from_numpy(np.flatnonzero(data.popularity))
    taken = torch.from_numpy(data.taken.toarray() > 0)

    def logits(user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        product = tables[0](user) * tables[1](item)
        both = torch.cat([tables[2](user), tables[3](item)], dim=-1)
        return output(torch.cat([product, tower(both)], dim=-1)).squeeze(-1)

    def epoch(optimizer: torch.optim.Optimizer) -> None:
        for batch in torch.randperm(len(user_N)).split(1_024):
            user = user_N[batch].repeat(5)
            other = candidate_C[torch.randint(len(candidate_C), (4 * len(batch),))]
            item = torch.cat([item_N[batch], other])
            wanted = (torch.arange(len(item)) < len(batch)).float()
            kept = ~taken[user, item] | (wanted > 0)
            loss = functional.binary_cross_entropy_with_logits(logits(user, item)[kept], wanted[kept])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def score(user_B: np.ndarray, histories: list[list[int]]) -> torch.Tensor:
        rows = [logits(torch.tensor(user).expand(num_items), torch.arange(num_items)) for user in user_B]
        return torch.stack(rows).masked_fill(torch.from_numpy(data.popularity == 0), -1e9)

    return stopped_early(network, data, epoch, score)


def plain_two_tower(data: Data, seed: int, in_batch: bool, width: int = 64, length: int = 50) -> np.ndarray:
    """A person is the mean of the newest items; cosines at temperature 0.1; 1,024 interactions of anybody a step.

    The softmax is over the batch's items, corrected for how often each is drawn, or over the whole catalogue.
    """
    torch.manual_seed(seed)
    ids = nn.Embedding(data.num_items + 1, width, padding_idx=0)
    nn.init.normal_(ids.weight, std=width**-0.5)

    def tower() -> nn.Module:
        return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(2 * width, width))

    person, thing = tower(), tower()
    network = nn.ModuleList([ids, person, thing])
    seen = torch.from_numpy(data.popularity > 0)
    log_share = torch.from_numpy(data.popularity / data.popularity.sum()).clamp_min(1e-9).log().float()
    before = [items[max(0, at - length) : at] for items in data.sequences.values() for at in range(1, len(items))]
    target_N = torch.tensor([item for items in data.sequences.values() for item in items[1:]])

    def scores(histories: list[list[int]]) -> torch.Tensor:
        newest = [torch.tensor(history[-length:]) for history in histories]
        had = nn.utils.rnn.pad_sequence(newest, batch_first=True)
        mean = ids(had).sum(dim=1) / (had > 0).sum(dim=1, keepdim=True)
        query = functional.normalize(mean + person(mean), dim=-1)
        items = functional.normalize(ids.weight + thing(ids.weight), dim=-1)
        return (query @ items.T / 0.1).masked_fill(~seen, -1e9)

    def epoch(optimizer: torch.optim.Optimizer) -> None:
        for batch in torch.randperm(len(before)).split(1_024):
            score, target = scores([before[number] for number in batch]), target_N[batch]
            if in_batch:
                is_other = (target[:, None] == target) & ~torch.eye(len(target), dtype=torch.bool)
                score = (score[:, target] - log_share[target]).masked_fill(is_other, -1e9)
                target = torch.arange(len(target))
            loss = functional.cross_entropy(score, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return stopped_early(network, data, epoch, lambda _, histories: scores(histories))


SIDES: list[tuple[str | None, Callable[[Data, str], Iterator[Row]]]] = [
    ("lenskit", lenskit_rows),
    ("implicit", implicit_rows),
    ("scikit-learn", text_rows),
    (None, transcribed_rows),
    (None, network_rows),
]
"""Which library the rows need, and what makes them."""
CLASSICS = (
    "random",
    "popular",
    "popular-recent",
    "content-tfidf",
    "content",
    "markov",
    "item-knn",
    "user-knn",
    "vsknn",
    "stan",
    "ease",
    "mf",
    "ncf",
    "two-tower",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder that recloom prepare wrote")
    parser.add_argument("--only", default=",".join(CLASSICS), help="models, separated by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Data(Dataset.open(options.dataset))
    found = {}
    for library, package in LIBRARIES.items():
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            print(f"{library} is not installed, its rows are left out; install it with: pip install {package}")
    print(f"| model | the other side | NDCG@{K} ours | theirs | places alike | fit, ours / theirs | note |")
    print("|---|---|---|---|---|---|---|")
    for model in options.only.split(","):
        for library, rows in SIDES:
            if library is None or library in found:
                for row in rows(data, model):
                    print(row, flush=True)
    print(f"\nData {data.dataset.fingerprint}; {len(data.test):,} users; {found | versions()}; {hardware()}.")


if __name__ == "__main__":
    main()
