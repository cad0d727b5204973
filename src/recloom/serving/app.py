"""The HTTP interface over an engine and a store: a handler translates, calls, and translates back."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.responses import PlainTextResponse, Response

from recloom.errors import ConfigError
from recloom.explanation import Language, Phraser, Writer, load_writer
from recloom.files import current_folder, damaged_file, version_of
from recloom.serving import metrics, problems
from recloom.serving.access import Access, needs
from recloom.serving.bodies import (
    EventIn,
    EventsIn,
    EventsOut,
    ExperimentsOut,
    ExperimentState,
    ItemState,
    ModelIn,
    ModelsOut,
    ModelState,
    PastEvent,
    Problem,
    Promotion,
    RecommendationsIn,
    RecommendationsOut,
    Scalar,
    SimilarOut,
    UserDeleted,
    is_scalar,
)
from recloom.serving.database import Database
from recloom.serving.engine import DEFAULT, Engine, Served, Wanted
from recloom.serving.experiments import report
from recloom.serving.live_model import Ask, Shown
from recloom.serving.middleware import Guard
from recloom.serving.problems import ProblemError
from recloom.serving.settings import Settings, read_experiment, read_rules
from recloom.serving.store import Event, ModelEntry, Store
from recloom.version import __version__

T = TypeVar("T")
SESSION_PREFIX = "session:"
"""What keeps an anonymous session apart from a user of the same name."""
MOST_AHEAD = 86_400
"""Seconds that an event may lie in the future, for clocks that are wrong."""
MOST_PHRASERS = 4
"""Versions of models whose titles are kept ready for checking what a writer says."""
DOCUMENTED = (400, 401, 403, 404, 409, 413, 422, 429, 503)
"""Problems that any request may get for an answer."""
_IdInPath = Annotated[str, InPath(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Reports:
    """What came of the experiments: one count at a time, however many people look."""

    def __init__(self) -> None:
        self._counting: asyncio.Task[None] | None = None
        self._latest: list[dict[str, Any]] | None = None

    async def look(self, service: "Service", seconds: float) -> tuple[list[dict[str, Any]] | None, bool]:
        """Count, or wait for the count under way; return the latest one there is, and whether it is this one."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count(service))
        await asyncio.wait({self._counting}, timeout=seconds)
        is_fresh = self._counting.done()
        if is_fresh:
            self._counting.result()
        return self._latest, is_fresh

    async def _count(self, service: "Service") -> None:
        self._latest = await asyncio.to_thread(experiment_reports, service)


@dataclass
class Service:
    """All that the handlers share."""

    engine: Engine
    store: Store
    settings: Settings
    access: Access
    reports: Reports = field(default_factory=Reports)
    writer: Writer | None = None
    """What phrases reasons, where a request wants it."""
    _phrasers: dict[str, Phraser] = field(default_factory=dict)
    """By the version of the model whose catalogue's titles they know; a few, as an experiment takes turns."""

    @property
    def needs_key(self) -> bool:
        """Whether nothing is answered without a key: it was started so, or there is one by now."""
        return self.access.required or bool(self.engine.shared.keys)

    def person(self, user_id: str | None, session_id: str | None, what: str) -> str:
        """Return what somebody is known by.

        Raises:
            ConfigError: Neither or both are given, or a user has the name of a session.
        """
        if (user_id is None) == (session_id is None):
            raise ConfigError(f"{what} needs either user_id or session_id, one of them")
        if user_id is not None and user_id.startswith(SESSION_PREFIX):
            raise ConfigError(f"a user_id cannot begin with {SESSION_PREFIX}; give the rest of it as session_id")
        return self.known_as(user_id if user_id is not None else f"{SESSION_PREFIX}{session_id}")

    def known_as(self, person: str) -> str:
        """Return the pseudonym of a user or a session, where the service has a key."""
        pseudonyms = self.settings.pseudonyms
        if pseudonyms is None:
            return person
        prefix = SESSION_PREFIX if person.startswith(SESSION_PREFIX) else ""
        return f"{prefix}{pseudonyms.of(person.removeprefix(prefix))}"

    async def wait(self, future: "Future[T]") -> T:
        """Wait for another thread's answer, for as long as the service is willing to."""
        return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.service.timeout)

    async def call(self, function: Callable[[], T]) -> T:
        """Have the engine's thread do something."""
        return await self.wait(self.engine.call(function))

    async def phrased(self, served: Served, language: Language) -> list[str]:
        """Return the sentence of each item of a list, phrased by the writer where that is there in time."""
        why = [shown.why for shown in served.answer.items if shown.why is not None]
        if self.writer is None:
            return [explanation.sentence for explanation in why]
        model = served.model
        phraser = self._phrasers.get(model.version)
        if phraser is None:
            phraser = Phraser(self.writer, list(model.catalogue.titles), self.settings.service.writer_seconds)
            newest = list(self._phrasers.items())[1 - MOST_PHRASERS :]
            self._phrasers = {**dict(newest), model.version: phraser}
        phrased = await self.in_thread(phraser.phrase, [(one.sentence, one.reasons) for one in why], language)
        for one in phrased:
            metrics.phrased.labels("template" if one.problem else "writer").inc()
        return [one.text for one in phrased]

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Have a thread do something that waits for the database."""
        return await asyncio.wait_for(asyncio.to_thread(function, *arguments), self.settings.service.timeout)


def create_app(model: Path, database: str, settings: Settings | None = None, *, needs_keys: bool = False) -> FastAPI:
    """Build the service over a model folder.

    Args:
        model: What `recloom fit` or `Recommender.save` wrote.
        database: A file for SQLite, or `postgresql://…`.
        settings: Limits, rules and habits.
        needs_keys: Whether nothing is answered without a key.

    Raises:
        ArtifactError: The folder holds no model, or a damaged one.
        ConfigError: There is no writer of the name that the settings give.
        DatabaseError: The database cannot be reached.
    """
    settings = settings or Settings()
    options = settings.service
    writer = load_writer(options.writer) if options.writer else None
    store = Store(Database(database), queue=options.event_queue, attribution_seconds=3_600 * options.attribution_hours)
    try:
        engine = Engine(store, settings, model)
    except BaseException:
        store.close()
        raise
    service = Service(engine, store, settings, Access(options.rate_limit, needs_keys), writer=writer)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)
        await asyncio.to_thread(store.close)

    app = FastAPI(
        title="recloom",
        version=__version__,
        summary="What each person does next: events in, recommendations out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={code: {"model": Problem, "content": {problems.MEDIA_TYPE: {}}} for code in DOCUMENTED},
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(operations)
    from recloom.serving.page import router as page  # which calls what is above

    app.include_router(page)
    problems.install(app)
    # Events are checked one by one, so that a bad one is rejected by itself; their form has to be described by hand.
    app.openapi()["components"]["schemas"]["EventIn"] = EventIn.model_json_schema()
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=options.cors_origins, allow_methods=["*"], allow_headers=["authorization"]
        )
    # A page of another site must not reach an open service by having its own name point here.
    app.add_middleware(Guard, max_body_bytes=options.max_body_bytes, hosts=() if needs_keys else options.hosts)
    return app


async def service_of(request: Request) -> Service:
    """Return what the handlers of an app share."""
    service: Service = request.app.state.service
    return service


OfService = Annotated[Service, Depends(service_of)]
router = APIRouter(prefix="/v1")
operations = APIRouter()
_ADMIN, _INGEST, _RECOMMEND = (
    [Depends(needs("admin"))],
    [Depends(needs("ingest"))],
    [Depends(needs("recommend"))],
)


_ITEM = {"title": "A lamp", "category": "home|light", "price": 39.9, "available_until": "2027-01-01T00:00:00Z"}
_EXPERIMENT = {
    "name": "wider",
    "variants": [
        {"name": "now", "model": "default", "share": 0.5},
        {"name": "diverse", "model": "default", "share": 0.5, "rules": {"diversity": 0.3}},
    ],
}

# Events


@router.post("/events", response_model=EventsOut, dependencies=_INGEST, tags=["events"])
async def post_events(body: EventsIn, service: OfService) -> Response:
    """Keep what people did. The answer comes when it is on disk, and the next recommendation knows it."""
    options = service.settings.service
    if len(body.events) > options.max_events:
        raise ProblemError(413, f"{len(body.events):,} events at once; send at most {options.max_events:,}")
    now = int(time.time())
    kept, rejected = [], []
    for index, raw in enumerate(body.events):
        try:
            kept.append(_event(raw, now, service))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            rejected.append({"index": index, "detail": f"{place}: {message}" if place else message})
        except ConfigError as error:
            rejected.append({"index": index, "detail": str(error)})
    if kept:
        await service.wait(service.store.add(kept))
        for event in kept:
            metrics.event_lag_seconds.observe(max(0, now - event.timestamp))
    metrics.events.labels("accepted").inc(len(kept))
    metrics.events.labels("rejected").inc(len(rejected))
    return _json({"accepted": len(kept), "rejected": rejected})


def _event(raw: dict[str, Any], now: int, service: Service) -> Event:
    body = EventIn.model_validate(raw)
    timestamp = now if body.timestamp is None else body.timestamp
    if not 0 < timestamp <= now + MOST_AHEAD:
        raise ConfigError(f"timestamp {timestamp} is impossible; wanted a time after 1970 and not in the future")
    context = body.model_extra or {}
    if not all(map(is_scalar, [*context, *context.values()])) or len(context) > 50:
        raise ConfigError("context has to be at most 50 fields, each a text or a number")
    return Event(
        body.event_id or uuid.uuid4().hex,
        service.person(body.user_id, body.session_id, "an event"),
        body.item_id,
        timestamp,
        body.behavior,
        body.value,
        body.recommendation_id,
        {name: str(value).lower() if isinstance(value, bool) else value for name, value in context.items()},
    )


# Recommendations


@router.post("/recommendations", response_model=RecommendationsOut, dependencies=_RECOMMEND, tags=["recommendations"])
async def post_recommendations(body: RecommendationsIn, service: OfService) -> Response:
    """Recommend what comes next to a user, to a session, or to any history."""
    began = time.perf_counter()
    served = await service.wait(service.engine.recommend(wanted_from(body, service)))
    metrics.recommendation_seconds.labels(served.model.name, served.variant or "").observe(time.perf_counter() - began)
    answer = spelled(served, explain=body.explain)
    if body.explain and body.phrase:
        for place, sentence in zip(answer["items"], await service.phrased(served, body.language), strict=True):
            place["because"] = sentence
    return _json(answer)


def wanted_from(body: RecommendationsIn, service: Service) -> Wanted:
    """Turn a body into what the engine is asked.

    Raises:
        ConfigError: It asks for something that cannot be.
        ProblemError: It asks for more than the service is willing to do.
    """
    options = service.settings.service
    named = [name for name in ("user_id", "session_id", "history") if getattr(body, name) is not None]
    if len(named) != 1:
        raise ConfigError("give one of user_id, session_id and history")
    if body.k > options.max_k:
        raise ConfigError(f"k is {body.k:,}; this service makes lists of at most {options.max_k:,}")
    if body.model is not None and body.model not in service.engine.models:
        raise ConfigError(f"the service has no model {body.model!r}; there are: {', '.join(service.engine.models)}")
    history = None
    if body.history is not None:
        if len(body.history) > options.max_history:
            raise ConfigError(
                f"the history holds {len(body.history):,} interactions; send the newest {options.max_history:,}"
            )
        history = [_past_event(entry) for entry in body.history]
    rules = read_rules(body.filters)
    if rules.size > options.max_rule_items or len(rules.boosts) > options.max_boosts:
        raise ConfigError(
            f"the filters name {rules.size:,} things and {len(rules.boosts):,} boosts; this service takes"
            f" {options.max_rule_items:,} and {options.max_boosts:,}"
        )
    user = None if history is not None else service.person(body.user_id, body.session_id, "a request")
    timestamp = body.context.get("timestamp")
    if timestamp is not None and (isinstance(timestamp, str | bool) or not 0 <= timestamp < 10**11):
        raise ConfigError(f"the context timestamp is {timestamp!r}; it has to be UTC seconds")
    return Wanted(
        body.k,
        user,
        history,
        body.context,
        body.include_seen,
        rules,
        body.explain,
        body.language,
        body.model,
        is_logged=body.model is None,
    )


def _past_event(entry: str | PastEvent) -> Event:
    if isinstance(entry, str):
        return Event("", "", entry, 0, "")
    context = {name: value for name, value in (entry.model_extra or {}).items() if is_scalar(value)}
    return Event("", "", entry.item_id, entry.timestamp or 0, entry.behavior, context=context)


def spelled(served: Served, *, explain: bool) -> dict[str, Any]:
    """Return a list as the interface spells it."""
    return {
        "recommendation_id": served.recommendation_id,
        "model": f"{served.model.name}@{served.model.version}",
        "variant": served.variant,
        "served_by": served.answer.served_by,
        "unknown_items": served.answer.unknown_items,
        "items": _places(served.answer.items, explain),
    }


def _places(items: list[Shown], explain: bool) -> list[dict[str, Any]]:
    places = []
    for rank, shown in enumerate(items, start=1):
        place: dict[str, Any] = {"rank": rank, "item_id": shown.item_id, "score": shown.score, "title": shown.title}
        if explain:
            assert shown.why is not None
            place |= {"because": shown.why.sentence, "reasons": [reason.as_dict() for reason in shown.why.reasons]}
        places.append(place)
    return places


# Items and users


@router.get("/items/{item_id:path}/similar", response_model=SimilarOut, dependencies=_RECOMMEND, tags=["items"])
async def get_similar(item_id: _IdInPath, service: OfService, k: Annotated[int, Query(ge=1)] = 10) -> Response:
    """The items that the model places nearest to one."""
    if k > service.settings.service.max_k:
        raise ConfigError(f"k is {k:,}; this service makes lists of at most {service.settings.service.max_k:,}")

    def find() -> tuple[str, list[Shown]]:
        service.engine.sync()
        model = service.engine.models[DEFAULT]
        found = model.similar(item_id, k, service.engine.rules_of(model, None), time.time())
        return f"{model.name}@{model.version}", found

    model, found = await service.call(find)
    return _json({"model": model, "items": _places(found, explain=False)})


@router.put("/items/{item_id:path}", status_code=202, response_model=ItemState, dependencies=_ADMIN, tags=["items"])
async def put_item(
    item_id: _IdInPath, columns: Annotated[dict[str, Scalar | None], Body(examples=[_ITEM])], service: OfService
) -> Response:
    """Add an item, or replace what is known of it: the body holds the catalogue's columns.

    It can be recommended as soon as the language model has read it, within about a second.
    """
    if len(columns) > 200 or any(not name or len(name) > 64 for name in columns):
        raise ConfigError("an item may have at most 200 columns, with names of 1 to 64 letters")
    columns.pop("item_id", None)
    said = {name: value for name, value in columns.items() if value is not None}
    await service.in_thread(service.store.change_item, item_id, said)

    def is_unknown_for_good() -> bool:
        service.engine.sync()
        model = service.engine.models[DEFAULT]
        return model.text is None and not model.catalogue.row_of(item_id)

    if await service.call(is_unknown_for_good):
        detail = (
            "the model in service reads no text, so it cannot place a new item; one that does can, when it is loaded"
        )
        return _json({"item_id": item_id, "status": "accepted", "detail": detail}, 202)
    return _json({"item_id": item_id, "status": "accepted"}, 202)


@router.delete("/items/{item_id:path}", response_model=ItemState, dependencies=_ADMIN, tags=["items"])
async def delete_item(item_id: _IdInPath, service: OfService) -> Response:
    """Withdraw an item: no list that is made from now on holds it, on any instance."""
    await service.in_thread(service.store.change_item, item_id, None)
    await service.call(service.engine.sync)
    return _json({"item_id": item_id, "status": "withdrawn"})


@router.delete("/users/{user_id:path}", response_model=UserDeleted, dependencies=_ADMIN, tags=["users"])
async def delete_user(user_id: _IdInPath, service: OfService) -> Response:
    """Remove all that is stored of somebody, and stop using what the model's own log knows of them."""
    await service.call(service.engine.sync)  # lists that were answered are on their way to the database then
    removed = await service.in_thread(service.store.forget, service.known_as(user_id))
    await service.call(service.engine.sync)
    return _json(removed)


# Models and experiments


@router.get("/models", response_model=ModelsOut, dependencies=_ADMIN, tags=["models"])
async def get_models(service: OfService) -> Response:
    """The models in service, their versions, and how they search."""
    engine = service.engine

    def look() -> dict[str, Any]:
        return {
            "models": [model.facts() for model in engine.models.values()],
            "problems": [{"name": name, "detail": detail} for name, detail in engine.problems().items()],
        }

    return _json(await service.call(look))


@router.post("/models", status_code=202, response_model=ModelState, dependencies=_ADMIN, tags=["models"])
async def post_model(body: ModelIn, service: OfService) -> Response:
    """Load a model folder under a name, beside the others or in the place of one, without a failed request."""
    # For as long as it takes: to read a large model may take longer than the service lets others wait.
    version = await asyncio.to_thread(_version_in, Path(body.path))
    entry = ModelEntry(str(Path(body.path).absolute()), version, service.engine.started_with)
    await service.in_thread(service.store.put_model, body.name, entry)
    service.engine.refused.pop(body.name, None)

    def load() -> None:
        service.engine.retry(body.name)
        service.engine.sync()

    await service.call(load)
    return _json({"name": body.name, "version": version, "status": "loading"}, 202)


@router.delete("/models/{name:path}", response_model=ModelState, dependencies=_ADMIN, tags=["models"])
async def delete_model(name: Annotated[_IdInPath, InPath(examples=["wide"])], service: OfService) -> Response:
    """Take a model that was loaded beside the default out of service, on every instance."""
    engine = service.engine
    await service.call(engine.sync)
    if name == DEFAULT:
        raise ProblemError(409, "the default model cannot be removed; load another one in its place, or promote one")
    if name not in engine.shared.models:
        raise ProblemError(404, f"there is no model {name!r}; there are: {', '.join(engine.models)}")
    if engine.experiment is not None and name in engine.experiment.models:
        raise ProblemError(
            409, f"the running experiment {engine.experiment.name!r} asks the model {name!r}; stop it first"
        )
    await service.in_thread(service.store.remove_model, name)
    await service.call(engine.sync)
    return _json({"name": name, "status": "removed"})


def _version_in(path: Path) -> str:
    version = version_of(path)
    if version is None:
        raise ConfigError(f"{path} is not a model folder; make one with: recloom fit DATASET --out MODEL")
    if damaged := damaged_file(current_folder(path)):
        raise ConfigError(f"the model in {path} is damaged: {damaged} is not what was written; the old one stays")
    return version


@router.get("/experiments", response_model=ExperimentsOut, dependencies=_ADMIN, tags=["experiments"])
async def get_experiments(service: OfService) -> Response:
    """All experiments, the newest first: clicks, conversions and revenue a list, with intervals that always hold."""
    told, is_fresh = await service.reports.look(service, service.settings.service.timeout)
    if told is None or not is_fresh:
        raise TimeoutError
    return _json({"experiments": told})


def experiment_reports(service: Service) -> list[dict[str, Any]]:
    """Return what came of every experiment so far."""
    options = service.settings.service
    service.store.add(()).result()  # what waits is counted too
    reports = []
    for entry in service.engine.shared.experiments:
        experiment = read_experiment(entry["definition"])
        outcomes = service.store.outcomes(experiment.name, int(3_600 * options.attribution_hours))
        state = {"started": entry["started"], "stopped": entry["stopped"], "promoted": entry["promoted"]}
        told = report(experiment, outcomes, options.conversions, service.settings.behaviors)
        reports.append({**told, **state})
    return reports


@router.post("/experiments", status_code=201, response_model=ExperimentState, dependencies=_ADMIN, tags=["experiments"])
async def post_experiment(
    definition: Annotated[dict[str, Any], Body(examples=[_EXPERIMENT])], service: OfService
) -> Response:
    """Start an experiment: `{"name", "variants": [{"name", "model", "share", "rules"?}], "shadows"?}`."""
    experiment = read_experiment(definition)
    engine = service.engine
    experiment.check_models(list(engine.models))
    for name in dict.fromkeys(experiment.models):
        await service.call(partial(engine.check, engine.models[name], experiment))
    if not await service.in_thread(service.store.start_experiment, definition, int(time.time())):
        raise ProblemError(
            409, f"there is an experiment {experiment.name!r} already, or another one runs; stop it first"
        )
    await service.call(service.engine.sync)
    return _json({"name": experiment.name, "status": "running"}, 201)


@router.post("/experiments/{name:path}/stop", response_model=ExperimentState, dependencies=_ADMIN, tags=["experiments"])
async def stop_experiment(name: _IdInPath, service: OfService) -> Response:
    """End an experiment: everybody gets the default model again."""
    _entry(service, name)
    await service.in_thread(service.store.stop_experiment, name, int(time.time()))
    await service.call(service.engine.sync)
    return _json({"name": name, "status": "stopped"})


@router.post(
    "/experiments/{name:path}/promote", response_model=ExperimentState, dependencies=_ADMIN, tags=["experiments"]
)
async def promote(name: _IdInPath, body: Promotion, service: OfService) -> Response:
    """End an experiment, and make the model of one of its variants the default."""
    experiment = read_experiment(_entry(service, name)["definition"])
    variants = {variant.name: variant for variant in experiment.variants}
    if body.variant not in variants:
        raise ConfigError(f"the experiment has no variant {body.variant!r}; there are: {', '.join(variants)}")
    model = service.engine.models.get(variants[body.variant].model)
    if model is None:
        raise ProblemError(409, f"the model {variants[body.variant].model!r} is not in service any more")
    # What its lists obeyed in the experiment, the rules of a promotion before included.
    rules = service.engine.promoted_rules(model).and_also(variants[body.variant].rules)
    await service.call(partial(model.check, Ask(1, (), rules=service.settings.rules.and_also(rules))))
    entry = ModelEntry(str(model.path.absolute()), model.version, service.engine.started_with, asdict(rules))
    promoted = (body.variant, DEFAULT, entry)
    await service.in_thread(service.store.stop_experiment, name, int(time.time()), promoted)
    await service.call(service.engine.sync)
    return _json({"name": name, "status": "stopped", "promoted": body.variant})


def _entry(service: Service, name: str) -> dict[str, Any]:
    for entry in service.engine.shared.experiments:
        if entry["definition"]["name"] == name:
            return dict(entry)
    raise ProblemError(404, f"there is no experiment {name!r}")


# Operations


@operations.get("/healthz", tags=["operations"])
async def healthz() -> Response:
    """Whether the process answers."""
    return _json({"status": "ok"})


@operations.get("/readyz", tags=["operations"])
async def readyz(service: OfService) -> Response:
    """Whether the service can do its work: a model is loaded, and the database answers."""
    await service.in_thread(service.store.revision)
    return _json({"status": "ready", "version": service.engine.models[DEFAULT].version})


@operations.get("/metrics", tags=["operations"], dependencies=_ADMIN, response_class=PlainTextResponse)
async def get_metrics(service: OfService) -> Response:
    """What the service counts, for Prometheus."""
    metrics.waiting.labels("recommendations").set(service.engine.num_waiting)
    metrics.waiting.labels("writes").set(service.store.num_waiting)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _json(content: Any, status: int = 200) -> Response:
    spelled = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(spelled.encode(errors="replace"), status, media_type="application/json")
