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
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from recloom.errors import ConfigError, InputError, RecloomError
from recloom.explanation import Language
from recloom.files import version_of
from recloom.models import Said
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
    language: Language = "en"
    """Of the reasons."""
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


class Helper:
    """A thread for work that takes its time; unlike that of a pool, it never keeps a process from ending."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._is_closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have something done when what was submitted before is done."""
        self._work.put(partial(function, *arguments))

    def close(self) -> None:
        """Begin nothing any more."""
        self._is_closed = True
        self._work.put(lambda: None)

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._work.get()()  # without a name, which would keep a model alive until the next work comes
            except Exception:
                log.exception("work in the background failed")


class Engine:
    """All models of a service, and the thread that answers with them."""

    def __init__(self, store: Store, settings: Settings, folder: Path) -> None:
        """Load the default model, and those that the database names.

        Raises:
            ArtifactError: The default model cannot be loaded.
        """
        self.store, self.settings = store, settings
        self.models: Mapping[str, LiveModel] = {}
        """By name; replaced and never written to, so that other threads may look through it."""
        self.refused: dict[str, str] = {}
        """Why a model that should be in service is not, or not in the version it should be, by its name."""
        self.experiment: Experiment | None = None
        self.shared = store.shared(0)
        self._forgotten = set(self.shared.forgotten)
        self.started_with = str(folder.absolute())
        self._paths = {DEFAULT: folder}
        self._announced: dict[str, ModelEntry] = {}
        for name, entry in self.shared.models.items():
            self._announced[name] = entry
            if self._is_meant(name, entry):
                self._paths[name] = Path(entry.path)
        self._failed: dict[str, str] = {}
        self._waiting: deque[Wanted] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopped = False
        self._is_closing = threading.Event()
        self._loading: set[str] = set()
        self._next_watch = self._next_popularity = self._next_retention = 0.0
        self._num_removed = 0
        for name, path in self._paths.items():
            try:
                self._install(name, self._load(name, path, self.shared.items))
            except RecloomError as error:
                if name == DEFAULT:
                    raise
                self.refused[name] = str(error)
        # New items must not wait for a model that is being loaded.
        self._reader, self._loader = Helper("recloom-reader"), Helper("recloom-loader")
        self._take_shared(self.shared)
        # The language model is there when the first new item comes.
        self._reader.submit(self.models[DEFAULT].get_ready)
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
            helper.close()  # and not waited for: a load may take longer than a stop is given

    def is_forgotten(self, user_id: str) -> bool:
        """Whether somebody was deleted, so that the models' own logs are not to be read of them."""
        return self.store.digest_of(user_id) in self._forgotten

    def problems(self) -> dict[str, str]:
        """Return what is wrong with models, by name; to be run by the engine's thread."""
        found = {}
        for name, model in self.models.items():
            try:  # an item that was put since, or a start with another model, may not suit the rules
                self.check(model, self.experiment)
            except ConfigError as error:
                found[name] = str(error)
        return {**found, **self.refused}

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
            try:
                rules = self.rules_of(self.models[name], variant)
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
                    exposures.append(self._exposure(wanted, served, now, revision, is_shadow=False))
                made.append((wanted, served))
        self._remember(exposures)  # first, so that a click can never come before the list it came from
        for wanted, served in made:
            wanted.done.set_result(served)
        if self.experiment is not None:
            members = [member for members in groups.values() for member in members]
            for name in self.experiment.shadows:
                self._remember(self._shadow(name, members, now, revision))

    def rules_of(self, model: LiveModel, variant: Variant | None) -> Rules:
        """Return what a list obeys before the request has its say: the rules of service, promotion and variant.

        Raises:
            ConfigError: They contradict each other.
        """
        own = self.settings.rules.and_also(self.promoted_rules(model))
        return own if variant is None else own.and_also(variant.rules)

    def promoted_rules(self, model: LiveModel) -> Rules:
        """Return the rules that a model was promoted with; as long as another one still serves in its place, none."""
        entry = self.shared.models.get(model.name)
        if entry is None or not self._is_meant(model.name, entry) or Path(entry.path) != model.path.absolute():
            return Rules()
        return read_rules(entry.rules)

    def _ask(self, wanted: Wanted, known: Mapping[str, Sequence[Event]], rules: Rules, now: float) -> Ask:
        events: Sequence[Event] = wanted.history or ()
        user = None
        if wanted.user_id is not None:
            events = known[wanted.user_id]
            user = None if self.is_forgotten(wanted.user_id) else wanted.user_id
        return Ask(
            wanted.k, events, user, wanted.context, wanted.include_seen, rules, wanted.explain, now, wanted.language
        )

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

    def _shadow(
        self, name: str, members: Sequence[tuple[Wanted, Ask, Variant | None]], now: float, revision: int
    ) -> list[Exposure]:
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
            served = Served(uuid.uuid4().hex, model, name, answer)
            made.append(self._exposure(wanted, served, now, revision, is_shadow=True))
        return made

    def _exposure(self, wanted: Wanted, served: Served, now: float, revision: int, *, is_shadow: bool) -> Exposure:
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
            revision,
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
        self._forgotten.update(shared.forgotten)
        running = [entry for entry in shared.experiments if entry["stopped"] is None]
        experiment = read_experiment(running[0]["definition"]) if running else None
        if experiment != self.experiment:
            self.experiment = experiment
            self._failed.clear()  # what did not suit the one may suit the other
        for name in self._announced.keys() - shared.models.keys():
            self._drop(name)
        for name, entry in shared.models.items():
            if self._announced.get(name) != entry:
                self._announced[name] = entry
                if self._is_meant(name, entry):
                    self._paths[name] = Path(entry.path)
                    self._reload(name)

    def _is_meant(self, name: str, entry: ModelEntry) -> bool:
        """Whether an entry is for this instance: another default counts for those started with the same folder."""
        return name != DEFAULT or entry.in_place_of == self.started_with

    def _drop(self, name: str) -> None:
        """Let go of a model that was removed; one that is being loaded finds that nobody wants it any more."""
        for known in (self._announced, self._paths, self.refused, self._failed):
            known.pop(name, None)
        if name in self.models:
            self.models = {kept: model for kept, model in self.models.items() if kept != name}
            metrics.index_recall.remove(name)
            self._loader.submit(settle_memory)

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

    def _place(self, model: LiveModel, texts: Mapping[int, Said]) -> None:
        """Have encoders read what items say, on a thread of its own, and hand over what they made of it."""
        try:
            embeddings = model.encode(texts)
            self.call(lambda: model.place(embeddings))
        except Exception:
            log.exception("reading item text failed", extra={"model": model.name})

    def _load(self, name: str, path: Path, changes: Sequence[ItemChange]) -> LiveModel:
        model = LiveModel(name, path, self.settings, changes)
        self.check(model, self.experiment)
        return model

    def check(self, model: LiveModel, experiment: Experiment | None) -> None:
        """Make sure that a model can make the lists it is meant for, its own and, as a shadow, those of all variants.

        Raises:
            ConfigError: Rules name what its catalogue lacks, or contradict each other, so that every list would fail.
        """
        model.check(Ask(1, (), rules=self.rules_of(model, None)))
        for variant in experiment.variants if experiment is not None else ():
            if variant.model == model.name:
                model.check(Ask(1, (), rules=self.rules_of(model, variant)))
            elif experiment is not None and model.name in experiment.shadows and variant.model in self.models:
                model.check(Ask(1, (), rules=self.rules_of(self.models[variant.model], variant)))

    def _install(self, name: str, model: LiveModel) -> None:
        self.models = {**self.models, name: model}
        self.refused.pop(name, None)
        self._failed.pop(name, None)
        recall = model.search.index.recall if model.search.index else 1.0
        metrics.index_recall.labels(name).set(recall)
        self._next_popularity = 0.0

    def _reload(self, name: str) -> None:
        """Load a model in the background and put it in the place of the old one, which serves until then."""
        if name in self._loading:
            return
        path = self._paths[name]
        self._loading.add(name)

        def load() -> None:
            version = ""
            try:
                version = version_of(path) or ""
                revision, changes = self.store.items(0)
                model = self._load(name, path, changes)
            except Exception as error:
                self.call(partial(self._end_load, name, path, partial(self._refuse, name, version, error)))
            else:
                self.call(partial(self._end_load, name, path, partial(self._swap, name, model, revision)))

        self._loader.submit(load)

    def _end_load(self, name: str, path: Path, take_over: Callable[[], None]) -> None:
        """Have what came of a load taken over, unless the model was removed or put elsewhere meanwhile."""
        self._loading.discard(name)
        if self._paths.get(name) == path:
            take_over()
        elif name in self._paths:
            self._reload(name)

    def _refuse(self, name: str, version: str, failure: Exception) -> None:
        """Note what went wrong; a version that can never be loaded is not tried again."""
        log.error("model refused", extra={"model": name, "reason": str(failure)})
        self.refused[name] = str(failure)
        self._failed[name] = version if isinstance(failure, InputError) else ""

    def retry(self, name: str) -> None:
        """Forget that a model failed; to be run by the engine's thread."""
        self._failed.pop(name, None)
        self._announced.pop(name, None)

    def _swap(self, name: str, model: LiveModel, revision: int) -> None:
        # What changed while it was loaded.
        _, changes = self.store.items(revision)
        is_outgrown = model.is_outgrown_by(changes)
        texts = model.read(changes)
        try:
            self.check(model, self.experiment)
        except ConfigError as error:
            self._refuse(name, model.version, error)
            return
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
                    self._remove_old(now)
            except Exception as error:
                log.warning("housekeeping failed", extra={"reason": str(error)})
                self._is_closing.wait(1.0)

    def _remove_old(self, now: float) -> None:
        """Remove some of what is too old; the next ticks go on, so that what comes in is written in between."""
        removed = self.store.remove_before(int(time.time() - 86_400 * self.settings.service.retention_days))
        self._num_removed += removed
        if not removed:
            log.info("old rows removed", extra={"rows": self._num_removed})
            self._num_removed, self._next_retention = 0, now + RETENTION_SECONDS

    def _watch(self) -> None:
        """Load a model anew when its folder has another one."""
        for name, path in list(self._paths.items()):
            version, model = version_of(path), self.models.get(name)
            if version is not None and version not in (model and model.version, self._failed.get(name)):
                self.call(partial(self._reload, name))

    def _count_popularity(self) -> None:
        since = int(time.time() - 86_400 * self.settings.service.popular_days)
        counts = self.store.popularity(since, self.settings.behaviors)

        def take() -> None:
            for model in self.models.values():
                model.take_popularity(counts)

        self.call(take)
