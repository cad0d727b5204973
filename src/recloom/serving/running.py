"""A service within this process, for examples, notebooks and tests; `recloom serve` is for everything else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI


@contextmanager
def running(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve an app from a thread, on this machine only, for as long as the block lasts.

    Args:
        app: What `create_app` made.
        port: Where to listen; 0 takes any port that is free.

    Yields:
        The address, as "http://127.0.0.1:8000". Requests wait there until the service has started.

    Raises:
        OSError: Another program listens at the port.
    """
    with socket.create_server(("127.0.0.1", port)) as door:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
