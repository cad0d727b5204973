"""`recloom serve`: a model folder to a service over HTTP."""

import gc
import ipaddress
import sys
from pathlib import Path
from typing import Annotated

import typer

from recloom.cli.console import messages
from recloom.cli.live_store import default_database
from recloom.errors import ConfigError, MissingExtraError

TURN_SECONDS = 0.0005
OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""More than Python's 700, which a few lists use up: nothing a list is made of is garbage in a cycle."""
GRACE_SECONDS = 20
"""How long requests under way may take when the service is told to stop."""


def serve(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="RECLOOM_DATABASE",
            help="SQLite file, or postgresql://… for several instances. [default: MODEL.live.db]",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in TOML: [service], [rules], [behaviors], ...")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting: service.max_k=100. Repeatable.")] = None,
) -> None:
    """Serve recommendations over HTTP: events in, lists out, and a page to look at."""
    try:
        import uvicorn

        from recloom.serving import create_app, read_settings
        from recloom.serving.database import without_password
        from recloom.serving.logs import log_as_json
        from recloom.serving.store import has_keys
    except ImportError as error:
        raise MissingExtraError("serve", "recloom serve") from error
    settings = read_settings(config, set_)
    address = database or str(default_database(model))
    is_local = _is_loopback(host)
    needs_keys = has_keys(address)
    if not is_local and not needs_keys:
        raise ConfigError(
            f"{host} can be reached from elsewhere, and there is no key yet; make one with:"
            f" recloom keys add NAME --role admin --database {without_password(address)}"
        )
    log_as_json()
    # The thread that answers must not wait five milliseconds, Python's usual turn, for the one that writes.
    sys.setswitchinterval(TURN_SECONDS)
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    app = create_app(model, address, settings, needs_keys=needs_keys)
    messages.print(f"Serving {model} at http://{host}:{port} (the interface is described at /docs; Ctrl-C stops)")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
