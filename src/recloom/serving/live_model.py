"""A fitted model, the catalogue as it is now, and what people did up to this moment -> ranked lists.

Everything here is called by one thread, the engine's, but for loading.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recloom.dataset import CategoryColumn, Dataset, Histories, Requests, Segments, context_value
from recloom.encoders import describe_problems, item_titles
from recloom.errors import ConfigError, InputError, MissingExtraError, UnknownIdError
from recloom.events import IMAGE
from recloom.explanation import Explainer, Explanation, Language, Names, Reason, Reasoner, with_reasons
from recloom.files import current_folder, recover, version_of
from recloom.models import MODELS, CountedModel, Said, TrainingData, VectorModel
from recloom.recommender import Recommender
from recloom.retrieval import ApproximateIndex, Catalogue, Hits, Rules, Search, arrange
from recloom.serving.pictures import served_picture
from recloom.serving.settings import Settings
from recloom.serving.store import Event, ItemChange

log = logging.getLogger("recloom.serving")
QUERIES_TO_MEASURE = 200
"""Histories that the recall of an approximate index is measured with."""
CONTENT, POPULAR = "content", "popular-recent"
MOST_OUTDATED = 0.1
"""Share of the items that the index may not know as they are now before it is built anew."""


@dataclass(frozen=True)
class Ask:
    """One list that is wanted."""

    k: int
    events: Sequence[Event]
    """What is known beside the log the model was fitted on, oldest first."""
    user: str | None = None
    """Whose history in that log counts too; None for nobody's."""
    context: Mapping[str, Any] = field(default_factory=dict)
    include_seen: bool | None = None
    rules: Rules = field(default_factory=Rules)
    explain: bool = False
    now: float = 0.0
    language: Language = "en"


@dataclass(frozen=True)
class Shown:
    """One place of a list."""

    item_id: str
    score: float | None
    """None for a pinned item."""
    title: str
    why: Explanation | None = None
    """None where nobody asked."""


@dataclass(frozen=True)
class Answer:
    """A list, and who made it."""

    items: list[Shown]
    served_by: str
    unknown_items: int


@dataclass(frozen=True)
class _Past:
    """What one person did, in rows of the catalogue."""

    rows: np.ndarray
    times: np.ndarray
    behaviors: np.ndarray
    context: dict[str, np.ndarray]
    disliked: list[int]
    num_unknown: int
    user_index: int


class LiveModel:
    """A model in service."""

    def __init__(self, name: str, path: Path, settings: Settings, changes: Sequence[ItemChange] = ()) -> None:
        """Load a model folder, and take over what became of items since.

        Args:
            name: What the service calls it.
            path: The folder, of one model or of versions.
            settings: Of the service.
            changes: Items that came, changed or went at run time.

        Raises:
            ArtifactError: The folder holds no model, or a damaged one.
            ConfigError: Its user ids are pseudonyms of another key than the service has.
        """
        self.name, self.path = name, path
        recover(path)
        folder = current_folder(path)  # once: another version may become current at any moment
        recommender = Recommender.load(folder)
        recommender.check_pseudonyms(settings.pseudonyms)
        self.version = version_of(folder) or ""
        self.settings = settings
        fitted = len(recommender.dataset.items)
        self.recommender = recommender.with_room(room_for(recommender, settings.service.room, changes))
        self.dataset: Dataset = self.recommender.dataset
        self.text = self.recommender.text
        room = len(self.dataset.items) - fitted  # none where the model reads no text
        self.catalogue = Catalogue(recommender.dataset.item_table, recommender.titles, room, settings.availability)
        self.search = Search(self.recommender.model)
        self._content: Search | None = None
        self._popularity_I = self._fitted_popularity_I = self._fitted_popularity()
        self._usual_behavior = int(np.bincount(self.dataset.behavior.values, minlength=2).argmax())
        self.loaded = time.time()
        self.place(self.encode(self.read(changes)))
        self.build_index()

    @property
    def kind(self) -> str:
        """The model's name in the library, such as `weave`."""
        return self.recommender.config.model_name

    def facts(self) -> dict[str, Any]:
        """Return what people may want to know of the model."""
        index = self.search.index
        return {
            "name": self.name,
            "model": self.kind,
            "version": self.version,
            "items": len(self.catalogue),
            "room": self.catalogue.room,
            "loaded": int(self.loaded),
            "fitted_on": self.recommender.run.dataset,
            "validation_ndcg_at_10": self.recommender.run.validation_ndcg_at_10,
            "search": "exact" if index is None else "approximate",
            "index_recall": None if index is None else round(index.recall, 4),
        }

    # Items

    def read(self, changes: Sequence[ItemChange]) -> dict[int, Said]:
        """Take over changes of items; return what encoders still have to read of them, by row."""
        puts = [change for change in changes if not change.is_withdrawn]
        said_before = dict(
            zip((change.item_id for change in puts), self._said(self._table(self._known(puts))), strict=True)
        )
        table = self._table([change.columns for change in puts])
        said = {}
        for change, one, title in zip(puts, self._said(table), item_titles(table), strict=True):
            row = self.catalogue.row_of(change.item_id)
            if row or self.catalogue.room:
                row = self.catalogue.put(change.item_id, change.columns, title)
                before = said_before[change.item_id]
                if not self.catalogue.placed_mask[row]:
                    said[row] = one
                elif one != before:
                    # A picture that is as it was need not be there any more.
                    news = (None if new == old else new for new, old in zip(one[1:], before[1:], strict=True))
                    said[row] = (one[0], *news)
        for change in changes:
            if change.is_withdrawn:
                self.catalogue.withdraw(change.item_id)
        return said

    def is_outgrown_by(self, changes: Sequence[ItemChange]) -> bool:
        """Whether more items come than there is room for, or too many changed for the index to be of use."""
        index = self.search.index
        if index is not None and index.outdated_share(self.catalogue.placed_mask) > MOST_OUTDATED:
            return True
        new = {change.item_id for change in changes if not change.is_withdrawn}
        new = {id_ for id_ in new if not self.catalogue.row_of(id_)}
        return self.text is not None and len(new) > self.catalogue.room

    def get_ready(self) -> None:
        """Load the language model, so that it is there when the first new item comes."""
        if self.text is not None:
            self.text.read(["ready"])

    def encode(self, said: Mapping[int, Said]) -> dict[int, np.ndarray]:
        """Have encoders read what items say; takes its time, and may be called by another thread."""
        if self.text is None or not said:
            return {}
        names = [other.name for other in self.text.others]
        allowed = [self._allowed_files(one, names) for one in said.values()]
        try:
            embedding_NE, problems = self.text.read_said(allowed, list(said))
        except InputError as error:
            if not names:
                raise
            log.warning("pictures not looked at", extra={"model": self.name, "reason": str(error)})
            words = [(one[0], *(None for _ in names)) for one in allowed]
            embedding_NE, problems = self.text.read_said(words, list(said))
        for name, wrong in problems.items():
            log.warning("parts of items not used", extra={"model": self.name, "reason": describe_problems(name, wrong)})
        embedding_NE[self.recommender.holds_text(list(said))] = 0
        # At once, so that the next change of an item finds what it may keep.
        self.text.put(np.array(list(said)), embedding_NE)
        return dict(zip(said, embedding_NE, strict=True))

    def _allowed_files(self, one: Said, names: Sequence[str]) -> Said:
        """Return what an item says without pictures that the service may not look at."""
        folder = self.settings.service.pictures
        cells = zip(names, one[1:], strict=True)
        return (one[0], *(served_picture(cell, folder) if cell and name == IMAGE else cell for name, cell in cells))

    def place(self, embeddings: Mapping[int, np.ndarray]) -> None:
        """Take what encoders made of some items, and let them be shown."""
        rows = list(embeddings)
        if rows:
            embedding_NE = np.stack(list(embeddings.values()))
            self.search.read_items(rows, embedding_NE)
            if self._content is not None:
                self._content.read_items(rows, embedding_NE)
            self.catalogue.place(rows)

    def _known(self, changes: Sequence[ItemChange]) -> list[dict[str, Any]]:
        return [self.catalogue.values_of(self.catalogue.row_of(change.item_id)) for change in changes]

    def _said(self, items: pl.DataFrame) -> list[Said]:
        if self.text is None:
            return [("",)] * len(items)
        return self.text.said(items, self.recommender.config.encoder.template)

    def _table(self, items: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Return items as a table like the one the model was fitted on, so that their texts are made alike."""
        fitted = self.recommender.dataset.item_table.schema
        columns = {"item_id": pl.Series([""] * len(items), dtype=pl.String)}
        for name in dict.fromkeys([*fitted, *(name for item in items for name in item)]):
            values = [item.get(name) for item in items]
            if name in fitted and fitted[name].is_numeric():
                numbers = [None if isinstance(value, str) else value for value in values]
                columns[name] = pl.Series(name, numbers, dtype=pl.Float64, strict=False)
            elif name != "item_id":
                columns[name] = pl.Series(name, [None if v is None else str(v) for v in values], dtype=pl.String)
        return pl.DataFrame(columns)

    def take_popularity(self, count_by_item: Mapping[str, float]) -> None:
        """Let the popular list follow what people do now; what they did before decides where nobody does anything."""
        popularity_I = self._fitted_popularity_I / (self._fitted_popularity_I.max() + 1)
        for item, count in count_by_item.items():
            popularity_I[self.catalogue.row_of(item)] += count
        self._popularity_I = popularity_I

    def _fitted_popularity(self) -> np.ndarray:
        popularity_I = np.zeros(self.catalogue.size, dtype=np.float32)
        everything = Segments(self.dataset.user_offsets[:-1], self.dataset.user_offsets[1:])
        data = TrainingData(self.dataset, everything)
        counts_I, recent_I = data.item_counts(), data.item_counts(self.settings.service.popular_days)
        popularity_I[: len(counts_I)] = recent_I + counts_I / (counts_I.max(initial=0) + 1)
        return popularity_I

    # Lists

    def answer(self, asks: Sequence[Ask], *, makers: int = 3) -> list[Answer]:
        """Return the list of each ask: by the model, else by content, else by what is popular now.

        Args:
            asks: Each of them checked beforehand (`check`).
            makers: How many of the three may be asked, the last ones: 2 does without the model, 1 without content too.
        """
        pasts = [self._past(ask) for ask in asks]
        allowed = [self._allowed(ask, past) for ask, past in zip(asks, pasts, strict=True)]
        boosted = [ask.rules.boosted(self.catalogue) for ask in asks]
        histories = self._histories(asks, pasts, self.recommender.model.max_length)
        hits: list[Hits | None] = [None] * len(asks)
        served_by = [POPULAR] * len(asks)
        has_past = histories.length_B > 0
        can_answer = np.zeros(len(asks), dtype=bool)
        if makers == 3 and has_past.any():
            can_answer[has_past] = self.recommender.model.can_answer(histories.rows(np.flatnonzero(has_past)))
        for rows, search, name in (
            (np.flatnonzero(can_answer), lambda: self.search, self.kind),
            (np.flatnonzero(has_past & ~can_answer & (makers > 1)), self._by_content, CONTENT),
        ):
            found_by = search() if len(rows) else None
            if found_by is not None:
                found = found_by.search(
                    histories.rows(rows), [allowed[row] for row in rows], [boosted[row] for row in rows]
                )
                for row, hit in zip(rows.tolist(), found, strict=True):
                    hits[row], served_by[row] = hit, name
        answers = []
        for place, (ask, past) in enumerate(zip(asks, pasts, strict=True)):
            hit = hits[place] or self._popular(allowed[place], boosted[place])
            shown, scores = arrange(hit, ask.k, ask.rules, self.catalogue, allowed[place], self.search.unit_vectors)
            given = [None if np.isinf(score) else float(score) for score in scores.tolist()]
            why = self._why(ask, past, served_by[place], shown.tolist(), given) if ask.explain else [None] * len(given)
            items = [
                Shown(self.catalogue.ids[item], score, self.catalogue.titles[item], explanation)
                for item, score, explanation in zip(shown.tolist(), given, why, strict=True)
            ]
            answers.append(Answer(items, served_by[place], past.num_unknown))
        return answers

    def check(self, ask: Ask) -> None:
        """Make sure that an ask can be understood.

        Raises:
            ConfigError: It cannot.
        """
        if ask.rules.where:
            self.catalogue.mask(ask.rules.where)
        for boost in ask.rules.boosts:
            self.catalogue.mask(boost.where)
            if boost.column is not None:
                self.catalogue.numbers(boost.column)
        for name in ask.rules.max_per:
            self.catalogue.column(name)
        columns = self.dataset.context
        if unknown := sorted(set(ask.context) - {*columns, "timestamp"}):
            raise ConfigError(f"unknown context {', '.join(unknown)}; there are: {', '.join(['timestamp', *columns])}")
        for name, column in columns.items():
            context_value(column, ask.context.get(name))

    def similar(self, item_id: str, k: int, rules: Rules, now: float) -> list[Shown]:
        """Return the items nearest to one, as far as they may be shown.

        Raises:
            UnknownIdError: Nobody knows the item, or it may not be shown.
        """
        row = self.catalogue.row_of(item_id)
        if not row or not self.catalogue.open_mask(now)[row]:
            raise UnknownIdError(f"item {item_id!r} is not among the {len(self.catalogue):,} items of the catalogue")
        allowed_I = rules.allowed_mask(self.catalogue, now)
        allowed_I[row] = False
        with torch.no_grad():
            alike_I = self.search.model.similarity(row).float().numpy()
        best = zip(*(found.tolist() for found in Hits.of_scores(alike_I, allowed_I, None).best(k)), strict=True)
        return [Shown(self.catalogue.ids[item], score, self.catalogue.titles[item]) for item, score in best]

    def finder(self, now: float) -> Callable[[str, int], np.ndarray]:
        """Return the way from words to the rows of so many items that hold them in title or id, popular ones first.

        It may be gone by another thread: what it looks at is not changed any more.
        """
        titles, is_open_I, popularity_I = self.catalogue.titles_now(), self.catalogue.open_mask(now), self._popularity_I

        def find(words: str, most: int) -> np.ndarray:
            rows = titles.rows_with(words.casefold().split())
            rows = rows[is_open_I[rows]]
            return rows[np.argsort(-popularity_I[rows], kind="stable")[:most]]

        return find

    def popular_rows(self, most: int, now: float) -> np.ndarray:
        """Return the rows of what is popular now."""
        return self._popular(Rules().allowed_mask(self.catalogue, now), None).best(most)[0]

    # Parts

    def _allowed(self, ask: Ask, past: _Past) -> np.ndarray:
        allowed_I = ask.rules.allowed_mask(self.catalogue, ask.now)
        include = self.recommender.config.include_seen if ask.include_seen is None else ask.include_seen
        if not include:
            allowed_I[past.rows] = False
        allowed_I[past.disliked] = False
        return allowed_I

    def _past(self, ask: Ask) -> _Past:
        """Join what the log knows of somebody with what happened since."""
        dataset = self.dataset
        user = dataset.users.index_of(ask.user) if ask.user is not None else 0
        logged = slice(int(dataset.user_offsets[user]), int(dataset.user_offsets[user + 1])) if user else slice(0, 0)
        rows, times = dataset.item_index[logged], dataset.timestamp[logged]
        weights = self.settings.behaviors
        newest = int(times[-1]) if len(times) else 0
        known = set(zip(rows.tolist(), times.tolist(), strict=True)) if ask.events and len(times) else set()
        kept: list[tuple[int, Event]] = []
        disliked, num_unknown = [], 0
        for event in ask.events:
            row = self.catalogue.row_of(event.item_id)
            weight = weights.get(event.behavior, 1.0)
            if not row:
                num_unknown += 1
            elif weight < 0:
                disliked.append(row)
            elif weight > 0 and (row, event.timestamp) not in known:
                kept.append((row, event))
        behaviors = dataset.behavior.values[logged]
        context = {name: column.values[logged] for name, column in dataset.context.items()}
        if kept:
            # A time left out is taken for the one before, so that it adds no gap.
            live_times = np.maximum.accumulate([event.timestamp for _, event in kept])
            vocabulary = dataset.behavior.vocabulary
            live_behaviors = [vocabulary.index_of(event.behavior) or self._usual_behavior for _, event in kept]
            rows = np.concatenate([rows, np.array([row for row, _ in kept], dtype=rows.dtype)])
            behaviors = np.concatenate([behaviors, np.array(live_behaviors, dtype=behaviors.dtype)])
            for name, column in dataset.context.items():
                values = [_lenient_value(column, event.context.get(name)) for _, event in kept]
                context[name] = np.concatenate([context[name], np.array(values, dtype=column.values.dtype)])
            times = np.concatenate([times, live_times])
            if live_times[0] < newest:
                order = np.argsort(times, kind="stable")
                rows, times, behaviors = rows[order], times[order], behaviors[order]
                context = {name: values[order] for name, values in context.items()}
        return _Past(rows, times, behaviors, context, disliked, num_unknown, user)

    def _histories(self, asks: Sequence[Ask], pasts: Sequence[_Past], longest_read: int) -> Histories:
        length_B = np.array([min(len(past.rows), longest_read) for past in pasts], dtype=np.int64)
        shape = (len(pasts), int(length_B.max(initial=0)))
        item_BL, behavior_BL = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        time_BL = np.zeros(shape, np.int64)
        columns = self.dataset.context
        context_BL = {name: np.zeros(shape, column.values.dtype) for name, column in columns.items()}
        for row, (past, length) in enumerate(zip(pasts, length_B.tolist(), strict=True)):
            if length:
                item_BL[row, :length] = past.rows[-length:]
                behavior_BL[row, :length] = past.behaviors[-length:]
                time_BL[row, :length] = past.times[-length:]
                for name, values_BL in context_BL.items():
                    values_BL[row, :length] = past.context[name][-length:]
        end_B = np.cumsum([len(past.rows) for past in pasts])
        request = Requests(
            np.array([int(float(ask.context.get("timestamp") or ask.now)) for ask in asks], dtype=np.int64),
            {
                name: np.array([context_value(column, ask.context.get(name)) for ask in asks], column.values.dtype)
                for name, column in columns.items()
            },
        )
        return Histories(
            item_BL,
            time_BL,
            behavior_BL,
            context_BL,
            length_B,
            np.array([past.user_index for past in pasts], dtype=np.int64),
            request,
            np.concatenate([past.rows for past in pasts]),
            np.concatenate([[0], end_B[:-1]]).astype(np.int64),
            end_B.astype(np.int64),
        )

    def _by_content(self) -> Search | None:
        if self._content is None and self.text is not None:
            content = MODELS[CONTENT](MODELS[CONTENT].Config(), self.dataset, self.text)
            assert isinstance(content, CountedModel)
            everything = Segments(self.dataset.user_offsets[:-1], self.dataset.user_offsets[1:])
            content.count(TrainingData(self.dataset, everything))
            self._content = Search(content)
        return self._content

    def _popular(self, allowed_I: np.ndarray, boosted: tuple[np.ndarray, np.ndarray] | None) -> Hits:
        return Hits.of_scores(np.log1p(self._popularity_I), allowed_I, boosted)

    def _why(
        self, ask: Ask, past: _Past, served_by: str, rows: Sequence[int], scores: Sequence[float | None]
    ) -> list[Explanation]:
        """Say what brought each item of a list there; one that cannot be explained costs nobody the list."""
        search = {self.kind: self.search, CONTENT: self._content}.get(served_by)
        try:
            if search is None or served_by == POPULAR:
                told = Reasoner(self._explainer(self.search), self._names, self._is_new).explain(
                    None, rows, ask.language
                )
            else:
                # One interaction more than the model reads: it moves up when another one is taken away.
                history = self._histories([ask], [past], search.model.max_length + 1)
                told = Reasoner(self._explainer(search), self._names, self._is_new).explain(history, rows, ask.language)
        except Exception:
            log.exception("reasons failed", extra={"model": self.name, "version": self.version})
            told = [Explanation(self.catalogue.ids[row], self.catalogue.titles[row], None, [], "") for row in rows]
        boosted = ask.rules.boosted(self.catalogue)
        change = {} if boosted is None else dict(zip(boosted[0].tolist(), boosted[1].tolist(), strict=True))
        explained = []
        for row, score, one in zip(rows, scores, told, strict=True):
            rules = [Reason("rules", name="pinned")] if score is None else []
            rules += [Reason("rules", change[row], name="boost")] if row in change else []
            explained.append(with_reasons(one, rules, ask.language))
        return explained

    def _explainer(self, search: Search) -> Explainer:
        return Explainer(search.model, search.scorer)

    def _is_new(self, row: int) -> bool:
        return bool(self._popularity_I[row] == 0)

    @property
    def _names(self) -> Names:
        behaviors = ["", *self.dataset.behavior.vocabulary.ids]
        return Names(self.catalogue.ids.__getitem__, self.catalogue.titles.__getitem__, behaviors.__getitem__)

    def build_index(self) -> None:
        """Build the approximate index where there are items enough, with what some people would ask to measure it."""
        model = self.search.model
        if not isinstance(model, VectorModel) or len(self.catalogue) < self.settings.service.approximate_from:
            return
        if self.search.is_coded:
            return  # an index of whole vectors would take the memory that codes save
        users = np.flatnonzero(np.diff(self.dataset.user_offsets) > 0)
        chosen = np.random.default_rng(0).permutation(users)[:QUERIES_TO_MEASURE]
        asks = [Ask(1, (), user=self.dataset.users.id_of(int(user)), now=self.loaded) for user in chosen if user]
        with torch.no_grad():
            queries = (
                model.queries(self._histories(asks, [self._past(ask) for ask in asks], model.max_length))
                .float()
                .numpy()
            )
        vectors = self.search.item_vectors
        assert vectors is not None
        try:
            self.search.index = ApproximateIndex(vectors, queries, self.settings.service.approximate_recall)
        except MissingExtraError:
            return  # exact search serves as well, only slower
        self.search.index.outdate(np.flatnonzero(~self.catalogue.placed_mask).tolist())


def room_for(recommender: Recommender, spare: int, changes: Sequence[ItemChange]) -> int:
    """Return how many rows beyond the catalogue are wanted: for new items that are there already, and for some more."""
    known = recommender.dataset.items
    return spare + sum(not change.is_withdrawn and change.item_id not in known for change in changes)


def _lenient_value(column: Any, value: Any) -> float:
    """Return the code or number of an event's context; unknown where it does not fit, since the event has happened."""
    if not isinstance(column, CategoryColumn) and isinstance(value, str):
        value = None
    return context_value(column, value)
