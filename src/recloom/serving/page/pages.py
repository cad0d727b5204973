"""What all pages share: how they are written, how an error looks on one, and who may post."""

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from recloom.serving.access import COOKIE
from recloom.serving.page.words import in_language
from recloom.version import __version__

# Without its own policy a form would send `Origin: null`, as the service's other answers want no referrer at all.
_HEADERS = {"referrer-policy": "same-origin"}


def with_code(text: str) -> Markup:
    """Return text with what stands between backticks set as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


_ENVIRONMENT = Environment(
    # Titles are anybody's. jinja2's select_autoescape would not know the template's ending for HTML.
    loader=PackageLoader("recloom.serving.page"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_ENVIRONMENT.filters["with_code"] = with_code


def show(request: Request, template: str, status: int = 200, *, language: str = "en", **values: Any) -> Response:
    """Write a page; in another language than English, the one for trying it out."""
    service = request.app.state.service
    html = _ENVIRONMENT.get_template(f"{template}.html.jinja").render(
        language=language,
        t=in_language(language),
        version=__version__,
        path=request.url.path,
        is_logged_in=service.needs_key and COOKIE in request.cookies,
        **values,
    )
    return HTMLResponse(html, status, _HEADERS)


def sentence(request: Request, error: Exception) -> tuple[int, str]:
    """Return status and words of an error, the same as the rest of the service has for it."""
    handlers = request.app.exception_handlers
    answer = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    said = json.loads(answer(request, error).body)
    words = said["detail"].removesuffix(".")
    if ":" not in words.split(" ", 1)[0]:  # the name of a field stays as it is spelled
        words = words[:1].upper() + words[1:]
    return said["status"], f"{words}."


class PageRoute(APIRoute):
    """A route whose errors are a sentence on a page, and that leads to the login where a key is wanted."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with errors turned into pages."""
        handle = super().get_route_handler()

        async def handle_or_tell(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                status, said = sentence(request, error)
                if status == 401:
                    return RedirectResponse(f"/login?next={quote(_here(request))}", 303)
                return show(request, "problem", status, error=said)

        return handle_or_tell


def _here(request: Request) -> str:
    is_page = request.method == "GET"
    return f"{request.url.path}?{request.url.query}".removesuffix("?") if is_page else "/"
