"""What happens to every request before and after its handler: limits, headers, counting, one line of log."""

import ipaddress
import logging
import time
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recloom.serving import metrics
from recloom.serving.problems import problem, unforeseen

log = logging.getLogger("recloom.serving.requests")
SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"content-security-policy": b"default-src 'self'; img-src 'self' https: data:; frame-ancestors 'none';"
    b" base-uri 'none'; form-action 'self'",
    b"cache-control": b"no-store",
}
QUIET = ("/healthz", "/readyz", "/metrics")


class Guard:
    """Refuses strange hosts and bodies that are too large, adds security headers, counts and logs every request.

    The log holds the route as it is declared, never the address that was asked, which may name a person.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, hosts: Sequence[str]) -> None:
        self._app, self._max_body_bytes, self._hosts = app, max_body_bytes, hosts
        # Of a kind that reading a body lets through; any other exception there becomes a 400.
        self._too_large = HTTPException(413, f"the body is larger than {max_body_bytes:,} bytes; send it in parts")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                headers.extend((name, value) for name, value in SECURITY_HEADERS.items() if name not in present)
            await send(message)

        try:
            if self._hosts and not self._is_known(_header(scope, b"host")):
                detail = f"this service answers to {', '.join(self._hosts)}; name others in service.hosts"
                await problem(400, detail)(scope, receive, send_on)
            elif _declared_length(scope) > self._max_body_bytes:
                await problem(413, self._too_large.detail)(scope, receive, send_on)
            else:
                await self._app(scope, _Limited(receive, self._max_body_bytes, self._too_large), send_on)
        except Exception as error:
            # Answered here, because further out nothing would add headers to it.
            if status:
                raise
            await unforeseen(Request(scope), error)(scope, receive, send_on)
        finally:
            self._account(scope, status or 500, time.perf_counter() - began)

    def _is_known(self, host: str) -> bool:
        """Whether a host is one that is allowed, or an address, which no other site's name can be made to be."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True

    def _account(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        metrics.request_seconds.labels(route, str(status)).observe(seconds)
        if route not in QUIET:
            log.info("request", extra={"method": scope["method"], "route": route, "status": status,
                                       "milliseconds": round(seconds * 1000, 2)})  # fmt: skip


class _Limited:
    """A body that may only be so long, whatever its header says."""

    def __init__(self, receive: Receive, most: int, error: HTTPException) -> None:
        self._receive, self._left, self._error = receive, most, error

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._error
        return message


def _declared_length(scope: Scope) -> int:
    length = _header(scope, b"content-length")
    return int(length) if length.isdecimal() else 0


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")
