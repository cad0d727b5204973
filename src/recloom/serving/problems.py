"""Errors of the library and of the service -> responses, in one place (RFC 9457)."""

import asyncio
import json
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from recloom.errors import InputError, RecloomError, UnknownIdError
from recloom.serving.database import DatabaseError
from recloom.serving.engine import BusyError
from recloom.serving.store import QueueFullError

log = logging.getLogger("recloom.serving")
_TITLES = {400: "Bad request", 401: "No key", 403: "Not allowed", 404: "Not found", 405: "Method not allowed",
           409: "Conflict", 413: "Too large", 415: "Not JSON", 422: "Not understood", 429: "Too many requests",
           500: "Failed", 503: "Not now"}  # fmt: skip
MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request that gets a problem for an answer."""

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after


def problem(status: int, detail: str, retry_after: int | None = None) -> Response:
    """Return the response that says what was wrong."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Problem"), "status": status, "detail": detail}
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    # What it quotes may be no proper text.
    return Response(json.dumps(body, ensure_ascii=False).encode(errors="replace"), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have every exception of a handler answered as a problem."""
    for kind, answer in (
        (ProblemError, _told),
        (RequestValidationError, _not_understood),
        (HTTPException, _http),
        (RecloomError, _library),
        (BusyError, _busy),
        (QueueFullError, _busy),
        (TimeoutError, _late),
        (asyncio.TimeoutError, _late),
    ):
        app.add_exception_handler(kind, answer)  # type: ignore[arg-type]


def _told(_: Request, error: ProblemError) -> Response:
    return problem(error.status, error.detail, error.retry_after)


def _not_understood(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        return problem(400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    return problem(422, f"{place}: {first['msg'].removeprefix('Value error, ')}" if place else first["msg"])


def _http(_: Request, error: HTTPException) -> Response:
    response = problem(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _library(request: Request, error: RecloomError) -> Response:
    if isinstance(error, DatabaseError):
        return problem(503, str(error), retry_after=1)
    if isinstance(error, UnknownIdError):
        return problem(404, str(error))
    if isinstance(error, InputError):
        return problem(422, str(error))
    return unforeseen(request, error)


def _busy(_: Request, error: Exception) -> Response:
    return problem(503, "too much is waiting already; come back in a second", retry_after=1)


def _late(_: Request, error: Exception) -> Response:
    return problem(503, "the answer took too long and was given up; come back in a second", retry_after=1)


def unforeseen(request: Request, error: Exception) -> Response:
    """Return the response to a mistake of the service itself; what it was goes to the log only."""
    route = getattr(request.scope.get("route"), "path", "unknown")  # as declared: the address may name a person
    log.error("request failed", exc_info=error, extra={"route": route})
    return problem(500, "something went wrong here; the log of the service says what")
