"""A service within a process, for examples and notebooks."""

import socket
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from recloom.errors import RecloomError
from recloom.serving import running


def test_it_answers_as_long_as_the_block_lasts():
    app = FastAPI()
    app.get("/")(lambda: "here")
    with running(app) as address:
        assert httpx.get(address).json() == "here"
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_service_that_does_not_start_is_said_at_once():
    @asynccontextmanager
    async def broken(app):
        raise RuntimeError("no model")
        yield

    with pytest.raises(RecloomError, match="the service did not start"), running(FastAPI(lifespan=broken)):
        pass


def test_a_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"), running(FastAPI(), port):
            pass
