"""The pages, one handler each."""

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from recloom.serving import metrics
from recloom.serving.access import COOKIE, is_from_elsewhere, needs, refuse_other_sites
from recloom.serving.app import OfService, Service, post_events
from recloom.serving.bodies import EventsIn
from recloom.serving.engine import DEFAULT
from recloom.serving.page import figures
from recloom.serving.page.lists import context_fields, found_items, item_of, lists_of, past_items
from recloom.serving.page.pages import PageRoute, sentence, show
from recloom.serving.page.reference import reference
from recloom.serving.page.state import State
from recloom.serving.problems import ProblemError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
BEHAVIOR = "click"
PATIENCE_SECONDS = 2.0
"""How long the live page waits for the count of large experiments."""
PAGES = ("/", "/live", "/docs")
_STATIC = Path(__file__).parent / "static"
_LOOK = [Depends(needs("recommend"))]


@router.get("/", dependencies=_LOOK)
async def home(request: Request, service: OfService) -> Response:
    """Whose lists, in which situation, and what every variant recommends."""
    state = State.read(request.query_params)
    status, error, lists = 200, "", []
    try:
        lists = await lists_of(service, state, is_logged=not is_from_elsewhere(request))
    except Exception as problem:  # whatever it was, the page stays with what was typed, so that it can be put right
        status, error = sentence(request, problem)
    return show(
        request,
        "home",
        status,
        language=state.language,
        state=state,
        error=error,
        lists=lists,
        has_pictures=any(place.item.picture for shown in lists for place in shown.places),
        context=context_fields(service),
        experiment=service.engine.experiment,
        can_click=not state.is_person or _may_click(request, service),
        found=[] if state.is_person else await found_items(service, state),
        **await service.call(lambda: _items(service, state, has_past=state.is_person and not error)),
    )


def _items(service: Service, state: State, *, has_past: bool) -> dict[str, Any]:
    model = service.engine.models[DEFAULT]
    return {
        "history": [item_of(model, item) for item in state.history],
        "past": past_items(service, model, state) if has_past else [],
        "num_items": len(model.catalogue),
    }


def _may_click(request: Request, service: Service) -> bool:
    found = service.access.role_of(request.cookies.get(COOKIE, ""), service.engine.shared.keys)
    return not service.needs_key or (found is not None and found[0] in ("ingest", "admin"))


# A click says that something happened, which is what keys of the role ingest are for.
@router.post("/click", dependencies=[Depends(needs("ingest"))])
async def click(request: Request, service: OfService) -> Response:
    """Keep that the person who is looked at clicked on an item, and show what changed."""
    form = await _form(request)
    state = State.read(request.query_params)
    if not state.is_person:
        raise ProblemError(422, "a click needs a user or a session; say whose lists you look at")
    event = {**state.who, "item_id": form.get("item_id"), "behavior": BEHAVIOR,
             "recommendation_id": form.get("recommendation_id")}  # fmt: skip
    answer = json.loads(bytes((await post_events(EventsIn(events=[event]), service)).body))
    if answer["rejected"]:
        raise ProblemError(422, answer["rejected"][0]["detail"])
    return RedirectResponse(f"{state.link()}#lists", 303)


async def _form(request: Request) -> dict[str, str]:
    """Read a form of this page.

    Raises:
        ProblemError: Another site sent it.
    """
    refuse_other_sites(request)
    body = (await request.body()).decode(errors="replace")
    return {name: values[-1] for name, values in parse_qs(body).items()}


@router.get("/live", dependencies=_LOOK)
async def live(request: Request, service: OfService) -> Response:
    """How the experiments stand, and how the service does."""
    state = request.app.state
    if not hasattr(state, "watch"):
        state.watch = figures.Watch()
    traffic, seconds, failed = state.watch.traffic()
    reports, _ = await service.reports.look(service, PATIENCE_SECONDS)
    engine = service.engine
    return show(
        request,
        "live",
        is_refreshing=request.query_params.get("refresh") != "off",
        now=time.time(),
        is_counted=reports is not None,
        experiments=[(report, figures.chart(report)) for report in reports or ()],
        models=await service.call(lambda: [model.facts() for model in engine.models.values()]),
        problems=await service.call(engine.problems),
        traffic=traffic,
        seconds=seconds,
        failed=failed,
        makers=figures.lists_by_maker(),
        waiting={"lists": engine.num_waiting, "writes": service.store.num_waiting},
        counts={
            "events kept": figures.total(metrics.events, outcome="accepted"),
            "events rejected": figures.total(metrics.events, outcome="rejected"),
            "model failures": figures.total(metrics.model_failures),
            "lists not recorded": figures.total(metrics.lost_exposures),
        },
        interval=figures.interval,
        moment=figures.moment,
        duration=figures.duration,
        chart_size=(figures.WIDTH, figures.HEIGHT, figures.LEFT),
    )


@router.get("/docs")
async def docs(request: Request, service: OfService) -> Response:
    """How to ask the service, made from its own description."""
    needs_keys = service.needs_key
    told = reference(request.app.openapi(), str(request.base_url), needs_keys=needs_keys)
    return show(request, "docs", reference=told, needs_keys=needs_keys, summary=request.app.summary)


@router.get("/login")
async def login(request: Request, service: OfService) -> Response:
    """Ask for a key."""
    if not service.needs_key:
        return RedirectResponse("/", 303)
    return show(request, "login", error="", next=request.query_params.get("next", "/"))


@router.post("/login")
async def take_key(request: Request, service: OfService) -> Response:
    """Remember a key in the browser, if it may look at the pages."""
    form = await _form(request)
    wait = service.access.spend(f"address {request.client.host if request.client else ''}")
    if wait:
        raise ProblemError(429, "too many attempts; slow down", int(wait) + 1)
    key, target = form.get("key", "").strip(), form.get("next", "/")
    found = service.access.role_of(key, service.engine.shared.keys)
    if found is None or found[0] not in ("recommend", "admin"):
        error = "The service does not know this key." if found is None else (
            f"The key {found[1]} has the role {found[0]}; the pages want recommend or admin.")  # fmt: skip
        return show(request, "login", 401 if found is None else 403, error=error, next=target)
    answer = RedirectResponse(target if target.split("?")[0] in PAGES else "/", 303)
    answer.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Forget the key."""
    await _form(request)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/page.css")
@router.get("/page.js")
@router.get("/page.svg")
async def static(request: Request) -> Response:
    """The look of the pages, and what refreshes the live one."""
    return FileResponse(_STATIC / request.url.path.lstrip("/"), headers={"cache-control": "max-age=300"})
