"""A service within this process, for examples, notebooks and tests; `recloom serve` is for everything else."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

from recloom.errors import RecloomError

SECONDS_BETWEEN_LOOKS = 0.01


@contextmanager
def running(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve an app from a thread, on this machine only, for as long as the block lasts.

    Args:
        app: What `create_app` made.
        port: Where to listen; 0 takes any port that is free.

    Yields:
        The address, as "http://127.0.0.1:8000", of a service that has started.

    Raises:
        OSError: Another program listens at the port.
        RecloomError: The service did not start.
    """
    with socket.create_server(("127.0.0.1", port)) as door:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))

        def serve() -> None:
            with suppress(SystemExit):  # of a service that cannot start; the program is not to end
                server.run([door])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RecloomError("the service did not start; what it logged says why")
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
