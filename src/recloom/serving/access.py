"""Who may do what: keys with roles, and how many requests a second each may make."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from fastapi import Request

from recloom.serving.problems import ProblemError
from recloom.serving.store import key_digest

Role = Literal["ingest", "recommend", "admin"]
COOKIE = "recloom_key"
MOST_BUCKETS = 10_000


class Access:
    """The keys of a service and the budgets of those who use it."""

    def __init__(self, rate_limit: float, required: bool) -> None:
        self.required = required
        """Whether nothing is answered without a key."""
        self._rate = rate_limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def role_of(self, key: str, keys: Any) -> tuple[str, str] | None:
        """Return role and name of a key, compared with every known one in the same time."""
        digest, found = key_digest(key), None
        for known, who in keys.items():
            if hmac.compare_digest(known, digest):
                found = who
        return found

    def spend(self, who: str) -> float:
        """Take one request from somebody's budget; return how many seconds too early it is."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        left, before = self._buckets.pop(who, (max(1.0, self._rate), now))
        left = min(max(1.0, self._rate), left + (now - before) * self._rate)
        is_enough = left >= 1
        self._buckets[who] = (left - 1 if is_enough else left, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if is_enough else (1 - left) / self._rate


def needs(role: Role) -> Callable[[Request], Coroutine[Any, Any, None]]:
    """Return a dependency that lets a request through whose key has the role, or is an admin's."""

    async def check(request: Request) -> None:
        service = request.app.state.service
        refuse_other_sites(request)
        access: Access = service.access
        who = f"address {request.client.host if request.client else ''}"
        if service.needs_key:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            key = given.strip() if scheme.lower() == "bearer" else ""
            key = key or request.headers.get("x-api-key", "") or request.cookies.get(COOKIE, "")
            found = access.role_of(key, service.engine.shared.keys) if key else None
            if found is None:
                raise ProblemError(401, "this service wants a key: send it as `Authorization: Bearer KEY`")
            if found[0] not in (role, "admin"):
                raise ProblemError(403, f"the key {found[1]} has the role {found[0]}, and this wants {role}")
            who = f"key {found[1]}"
        if wait := access.spend(who):
            raise ProblemError(429, "more requests a second than this key may make; slow down", int(wait) + 1)

    return check


def refuse_other_sites(request: Request) -> None:
    """Make sure that no page of another site makes the browser change something here.

    Raises:
        ProblemError: It does, and `service.cors_origins` does not allow it.
    """
    allowed = request.app.state.service.settings.service.cors_origins
    is_safe = request.method in ("GET", "HEAD", "OPTIONS")
    if not is_safe and is_from_elsewhere(request) and request.headers.get("origin") not in allowed:
        raise ProblemError(403, "another site made the browser send this; service.cors_origins can allow it")


def is_from_elsewhere(request: Request) -> bool:
    """Whether another site made the browser ask."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")
