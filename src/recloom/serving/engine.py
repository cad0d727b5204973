"""Requests of many people -> lists, a few at a time, by one thread that owns all models.

Because one thread answers, places items and swaps models, nothing is ever half changed while a list is made. Requests
that wait are computed together; when too many wait, further ones are refused.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from recloom.errors import InputError, RecloomError
from recloom.files import CHECKSUMS, file_digest
from recloom.retrieval import Rules
from recloom.serving import metrics
from recloom.serving.experiments import Experiment, Variant
from recloom.serving.live_model import Answer, Ask, LiveModel
from recloom.serving.memory import settle_memory
from recloom.serving.settings import Settings, read_experiment, read_rules
from recloom.serving.store import Event, Exposure, ItemChange, ModelEntry, QueueFullError, Shared, Store

log = logging.getLogger("recloom.serving")
T = TypeVar("T")
DEFAULT = "default"
PATIENCE = 1.0
"""How long to wait for those who were just answered, as a share of the time that their batch took."""
TICK_SECONDS = 0.2
WATCH_SECONDS = 2.0
POPULARITY_SECONDS = 60.0
RETENTION_SECONDS = 3_600.0


class BusyError(Exception):
    """Too many requests are waiting already."""


@dataclass
class Wanted:
    """A recommendation that somebody waits for."""

    k: int
    user_id: str | None = None
    history: Sequence[Event] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    include_seen: bool | None = None
    rules: Rules = field(default_factory=Rules)
    explain: bool = False
    model: str | None = None
    """A model to ask instead of the one that the experiment or the default says."""
    is_logged: bool = True
    """Whether the list is remembered as shown."""
    done: "Future[Served]" = field(default_factory=Future)


@dataclass(frozen=True)
class Served:
    """A recommendation that was made."""

    recommendation_id: str
    model: LiveModel
    variant: str | None
    answer: Answer


class Engine:
    """All models of a service, and the thread that answers with them."""

    def __init__(self, store: Store, settings: Settings, folder: Path) -> None:
        """Load the default model, and those that the database names.

        Raises:
            ArtifactError: The default model cannot be loaded.
        """
        self.store, self.settings = store, settings
        self.models: dict[str, LiveModel] = {}
        self.problems: dict[str, str] = {}
        """What went wrong with a model that should be in service, by its name."""
        self.experiment: Experiment | None = None
        self.shared = store.shared(0)
        self.started_with = str(folder.absolute())
        self._paths = {DEFAULT: folder}
        self._announced: dict[str, ModelEntry] = {}
        for name, entry in self.shared.models.items():
            self._announced[name] = entry
            if name != DEFAULT or entry.in_place_of == self.started_with:
                self._paths[name] = Path(entry.path)
        self._failed: dict[str, str] = {}
        self._waiting: deque[Wanted] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopped = False
        self._is_closing = threading.Event()
        # New items must not wait for a model that is being loaded.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="recloom-reader")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="recloom-loader")
        self._loading: set[str] = set()
        self._next_watch = self._next_popularity = self._next_retention = 0.0
        for name, path in self._paths.items():
            try:
                self._install(name, self._load(name, path, self.shared))
            except RecloomError as error:
                if name == DEFAULT:
                    raise
                self.problems[name] = str(error)
        self._take_shared(self.shared)
        # The language model is there when the first new item comes.
        self._reader.submit(self.models[DEFAULT].encode, {0: "ready"})
        self._loader.submit(settle_memory)
        self._thread = threading.Thread(target=self._run, name="recloom-engine", daemon=True)
        self._ticker = threading.Thread(target=self._tick, name="recloom-ticker", daemon=True)
        self._thread.start()
        self._ticker.start()

    # For the service

    def recommend(self, wanted: Wanted) -> "Future[Served]":
        """Have a list made.

        Raises:
            BusyError: Too many are waiting.
        """
        with self._wake:
            if len(self._waiting) >= self.settings.service.queue or self._stopped:
                raise BusyError
            self._waiting.append(wanted)
            self._wake.notify()
        return wanted.done

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Have something done between two batches, where nobody else touches the models."""
        done: Future[T] = Future()

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return  # whoever waited has given up
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        with self._wake:
            self._calls.append(run)
            self._wake.notify()
        return done

    def sync(self) -> None:
        """Take over what other instances, or this one, changed since; to be run by the engine's thread."""
        if self.store.revision() != self.shared.revision:
            shared = self.store.shared(self.shared.revision)
            self._take_items(shared.items)
            self._take_shared(shared)

    def close(self) -> None:
        """Answer who waits, then stop."""
        self._is_closing.set()
        self._ticker.join(timeout=30)  # it must not ask a database that is closed already
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=30)
        for helper in (self._reader, self._loader):
            helper.shutdown(wait=False, cancel_futures=True)  # a load may take longer than a stop is given

    @property
    def num_waiting(self) -> int:
        """Requests that wait for their list."""
        return len(self._waiting)

    # The thread

    def _run(self) -> None:
        torch.set_num_threads(self.settings.service.threads)
        expected, patience = 0, 0.0
        while True:
            with self._wake:
                # Whoever was answered just now often asks again at once: a moment's patience lets them share a batch,
                # much of whose cost does not depend on how many share it.
                self._wake.wait_for(partial(self._has_waiting, expected), patience)
                expected, patience = 0, 0.0
                while not (self._waiting or self._calls or self._stopped):
                    self._wake.wait()
                if self._stopped and not self._waiting and not self._calls:
                    return
                calls = list(self._calls)
                self._calls.clear()
                size = min(len(self._waiting), self.settings.service.batch)
                batch = [self._waiting.popleft() for _ in range(size)]
            for call in calls:
                call()
            batch = [wanted for wanted in batch if wanted.done.set_running_or_notify_cancel()]
            if batch:
                began = time.monotonic()
                try:
                    self._serve(batch)
                except Exception as error:  # whoever waits is told, and the next ones get their turn
                    for wanted in batch:
                        if not wanted.done.done():
                            wanted.done.set_exception(error)
                expected = min(len(self._waiting) + len(batch), self.settings.service.batch)
                patience = PATIENCE * (time.monotonic() - began)

    def _has_waiting(self, expected: int) -> bool:
        return len(self._waiting) >= expected or self._stopped

    def _serve(self, batch: Sequence[Wanted]) -> None:
        now = time.time()
        revision, known = self.store.look(wanted.user_id for wanted in batch if wanted.user_id is not None)
        if revision != self.shared.revision:
            self.sync()
        groups: dict[str, list[tuple[Wanted, Ask, Variant | None]]] = {}
        for wanted in batch:
            variant = None
            if self.experiment is not None and wanted.user_id is not None and wanted.model is None:
                variant = self.experiment.variant_of(wanted.user_id)
            name = wanted.model or (variant.model if variant else DEFAULT)
            if name not in self.models:
                name, variant = DEFAULT, None  # not the variant's list, so not counted as one
            rules = self.rules_of(variant) if wanted.model is None else self.settings.rules
            try:
                ask = self._ask(wanted, known, rules.and_also(wanted.rules), now)
                self.models[name].check(ask)
            except Exception as error:  # one person's mistake is nobody else's
                wanted.done.set_exception(error)
            else:
                groups.setdefault(name, []).append((wanted, ask, variant))
        exposures: list[Exposure] = []
        made: list[tuple[Wanted, Served]] = []
        for name, members in groups.items():
            model = self.models[name]
            answers = self._answer(model, [ask for _, ask, _ in members])
            for (wanted, _, variant), answer in zip(members, answers, strict=True):
                served = Served(uuid.uuid4().hex, model, variant.name if variant else None, answer)
                if wanted.is_logged:
                    metrics.served(served)
                    exposures.append(self._exposure(wanted, served, now, is_shadow=False))
                made.append((wanted, served))
        self._remember(exposures)  # first, so that a click can never come before the list it came from
        for wanted, served in made:
            wanted.done.set_result(served)
        if self.experiment is not None:
            members = [member for members in groups.values() for member in members]
            for name in self.experiment.shadows:
                self._remember(self._shadow(name, members, now))

    def rules_of(self, variant: Variant | None) -> Rules:
        """Return what a list obeys before the request has its say: the service's rules and a variant's.

        Raises:
            ConfigError: They contradict each other.
        """
        promoted = self.shared.models.get(DEFAULT)
        own = self.settings.rules
        if (
            promoted is not None
            and promoted.in_place_of == self.started_with
            and (variant is None or variant.model == DEFAULT)
        ):
            own = own.and_also(read_rules(promoted.rules))
        return own if variant is None else own.and_also(variant.rules)

    def _ask(self, wanted: Wanted, known: Mapping[str, Sequence[Event]], rules: Rules, now: float) -> Ask:
        events: Sequence[Event] = wanted.history or ()
        user = None
        if wanted.user_id is not None:
            events = known[wanted.user_id]
            user = None if self.store.digest_of(wanted.user_id) in self.shared.forgotten else wanted.user_id
        return Ask(wanted.k, events, user, wanted.context, wanted.include_seen, rules, wanted.explain, now)

    def _answer(self, model: LiveModel, asks: Sequence[Ask]) -> list[Answer]:
        try:
            return model.answer(asks)
        except Exception:
            log.exception("model failed", extra={"model": model.name, "version": model.version})
        # One by one, so that what fails for one person fails for nobody else; a list of what is popular is better
        # than none.
        answers = []
        for ask in asks:
            for makers in (3, 2, 1):
                try:
                    answers += model.answer([ask], makers=makers)
                    break
                except Exception:
                    metrics.model_failures.labels(model.name).inc()
                    if makers == 1:
                        raise
        return answers

    def _shadow(self, name: str, members: Sequence[tuple[Wanted, Ask, Variant | None]], now: float) -> list[Exposure]:
        model = self.models.get(name)
        if model is None:
            return []
        chosen = [(wanted, ask) for wanted, ask, variant in members if variant is not None and wanted.is_logged]
        began = time.perf_counter()
        try:
            answers = model.answer([ask for _, ask in chosen]) if chosen else []
        except Exception:
            log.exception("shadow failed", extra={"model": name, "version": model.version})
            metrics.model_failures.labels(name).inc(len(chosen))
            return []
        metrics.shadow_seconds.labels(name).observe(time.perf_counter() - began)
        made = []
        for (wanted, _), answer in zip(chosen, answers, strict=True):
            actual = {shown.item_id for shown in wanted.done.result().answer.items}
            same = len(actual & {shown.item_id for shown in answer.items})
            metrics.shadow_overlap.labels(name).observe(same / max(1, len(actual)))
            made.append(self._exposure(wanted, Served(uuid.uuid4().hex, model, name, answer), now, is_shadow=True))
        return made

    def _exposure(self, wanted: Wanted, served: Served, now: float, *, is_shadow: bool) -> Exposure:
        experiment = self.experiment.name if self.experiment is not None and served.variant else None
        return Exposure(
            served.recommendation_id,
            wanted.user_id,
            int(now),
            experiment,
            served.variant,
            is_shadow,
            served.model.name,
            served.model.version,
            served.answer.served_by,
            [shown.item_id for shown in served.answer.items],
        )

    def _remember(self, exposures: Sequence[Exposure]) -> None:
        try:
            if exposures:
                written = self.store.add((), exposures)
                written.add_done_callback(
                    lambda done: metrics.lost_exposures.inc(len(exposures) * bool(done.exception()))
                )
        except QueueFullError:
            metrics.lost_exposures.inc(len(exposures))  # a list that was answered is worth more than its record

    # What changes while it runs

    def _take_shared(self, shared: Shared) -> None:
        self.shared = shared
        running = [entry for entry in shared.experiments if entry["stopped"] is None]
        self.experiment = read_experiment(running[0]["definition"]) if running else None
        for name, entry in shared.models.items():
            if self._announced.get(name) != entry:
                self._announced[name] = entry
                self._paths[name] = Path(entry.path)
                self._reload(name)

    def _take_items(self, changes: Sequence[ItemChange]) -> None:
        for name, model in self.models.items():
            if model.is_outgrown_by(changes):
                self._reload(name)
            try:
                texts = model.read(changes)
            except Exception:  # the other models have to learn of it all the same
                log.exception("changes of items not taken over", extra={"model": name})
                continue
            if texts:
                self._reader.submit(self._place, model, texts)

    def _place(self, model: LiveModel, texts: Mapping[int, str]) -> None:
        """Have the language model read texts, on a thread of its own, and hand over what it made of them."""
        try:
            embeddings = model.encode(texts)
            self.call(lambda: model.place(embeddings))
        except Exception:
            log.exception("reading item text failed", extra={"model": model.name})

    def _load(self, name: str, path: Path, shared: Shared) -> LiveModel:
        model = LiveModel(name, path, self.settings, shared.items)
        # Rules that name what the model's catalogue lacks would fail every list.
        model.check(Ask(1, (), rules=self.settings.rules))
        return model

    def _install(self, name: str, model: LiveModel) -> None:
        self.models[name] = model
        self.problems.pop(name, None)
        self._failed.pop(name, None)
        recall = model.search.index.recall if model.search.index else 1.0
        metrics.index_recall.labels(name).set(recall)
        self._next_popularity = 0.0

    def _reload(self, name: str) -> None:
        """Load a model in the background and put it in the place of the old one, which serves until then."""
        if name in self._loading:
            return
        self._loading.add(name)
        path = self._paths[name]

        def load() -> None:
            version = ""
            try:
                version = file_digest(path / CHECKSUMS)[:12] if (path / CHECKSUMS).exists() else ""
                shared = self.store.shared(0)
                model = self._load(name, path, shared)
            except Exception as error:
                reason, is_final = str(error), isinstance(error, InputError)
                log.error("model refused", extra={"model": name, "reason": reason})
                self.call(lambda: self._refuse(name, version if is_final else "", reason))
            else:
                self.call(lambda: self._swap(name, model, shared.revision))

        self._loader.submit(load)

    def _refuse(self, name: str, version: str, reason: str) -> None:
        """Note what went wrong; a version that can never be loaded is not tried again."""
        self._loading.discard(name)
        self.problems[name] = reason
        self._failed[name] = version

    def retry(self, name: str) -> None:
        """Forget that a model failed; to be run by the engine's thread."""
        self._failed.pop(name, None)
        self._announced.pop(name, None)

    def _swap(self, name: str, model: LiveModel, revision: int) -> None:
        self._loading.discard(name)
        # What changed while it was loaded.
        changes = self.store.shared(revision).items
        is_outgrown = model.is_outgrown_by(changes)
        texts = model.read(changes)
        self._install(name, model)
        self._loader.submit(settle_memory)
        if texts:
            self._reader.submit(self._place, model, texts)
        if is_outgrown:
            self._reload(name)
        log.info("model loaded", extra={"model": name, "version": model.version})

    def _tick(self) -> None:
        while not self._is_closing.wait(TICK_SECONDS):
            try:
                self.call(self.sync).result(timeout=30)
                now = time.monotonic()
                if now >= self._next_watch:
                    self._next_watch = now + WATCH_SECONDS
                    self._watch()
                if now >= self._next_popularity:
                    self._next_popularity = now + POPULARITY_SECONDS
                    self._count_popularity()
                if self.settings.service.retention_days and now >= self._next_retention:
                    self._next_retention = now + RETENTION_SECONDS
                    oldest = int(time.time() - 86_400 * self.settings.service.retention_days)
                    log.info("old rows removed", extra={"rows": self.store.remove_before(oldest)})
            except Exception as error:
                log.warning("housekeeping failed", extra={"reason": str(error)})
                self._is_closing.wait(1.0)

    def _watch(self) -> None:
        """Load a model anew when its folder has another one."""
        for name, path in list(self._paths.items()):
            sums = path / CHECKSUMS
            if not sums.exists():
                continue
            version = file_digest(sums)[:12]
            current = self.models[name].version if name in self.models else None
            if version not in (current, self._failed.get(name)):
                self.call(partial(self._reload, name))

    def _count_popularity(self) -> None:
        since = int(time.time() - 86_400 * self.settings.service.popular_days)
        counts = self.store.popularity(since, self.settings.behaviors)

        def take() -> None:
            for model in self.models.values():
                model.take_popularity(counts)

        self.call(take)
