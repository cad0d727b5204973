import socket
import sys

import pytest

from recloom.cli.ray_option import with_address
from recloom.cluster import connected, connection
from recloom.errors import ConfigError, DataError, MissingExtraError, RecloomError


def join(address):
    with connected(address):
        raise AssertionError("there was a cluster to join")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--ray needs the extra 'ray'; install it with: pip install"):
        join("local")


@pytest.fixture
def with_ray():
    pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.filterwarnings("default")
class TestAddresses:
    @pytest.mark.parametrize("address", ["nonsense", "ray://head:10001", "head:port", "http://head:6379"])
    def test_an_address_that_is_none_is_refused(self, with_ray, address):
        with pytest.raises(ConfigError, match="is not understood; write HOST:PORT of the head node, auto or local"):
            join(address)

    def test_an_address_where_nothing_listens_is_said_so_at_once(self, with_ray):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        with pytest.raises(RecloomError, match=rf"no Ray cluster answers at 127.0.0.1:{port} \(Connection refused;"):
            join(f"127.0.0.1:{port}")

    def test_an_address_where_something_else_listens_is_not_waited_for_long(self, with_ray, monkeypatch):
        monkeypatch.setattr(connection, "SECONDS_TO_ANSWER", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.raises(RecloomError, match="what listens there is no head node of this version of Ray"):
                join(f"127.0.0.1:{port}")


class WrappedError(Exception):
    """Stand for how Ray hands on what a worker raised."""

    def __init__(self, cause):
        super().__init__("a traceback\nof many lines")
        self.cause = cause


class ObjectStoreFullError(Exception):
    """Stand for Ray's error of that name."""


def test_what_a_worker_raised_keeps_its_words():
    explained = connection.explained(WrappedError(DataError("part 3 is damaged; export it again")))
    assert isinstance(explained, DataError)
    assert str(explained) == "part 3 is damaged; export it again"


def test_a_full_object_store_is_one_sentence_that_says_what_to_do():
    explained = connection.explained(
        WrappedError(ObjectStoreFullError("Failed to put object\nThe local object store is full"))
    )
    assert "the object store of the Ray cluster is full" in str(explained)
    assert "--object-store-memory" in str(explained)
    assert "\n" not in str(explained)


AS_TEXT = """ray::Map()
  File "tasks.py", line 7, in call
{raised}

The above exception was the direct cause of the following exception:

ray::Map()
ray.exceptions.UserCodeException: UDF failed to process a data block."""


def test_a_full_object_store_is_found_where_ray_tells_of_it_in_a_text_only():
    error = RuntimeError(AS_TEXT.format(raised="ray.exceptions.OutOfDiskError: ('00ff', b'')\nUse `df`"))
    error.__cause__ = RuntimeError()
    assert "the object store of the Ray cluster is full" in str(connection.explained(error))


def test_anything_else_is_one_sentence_too():
    explained = connection.explained(WrappedError(OSError("connection lost\nmore")))
    assert str(explained).startswith("the Ray cluster failed (OSError: connection lost); what was finished is kept")


def test_what_a_worker_raised_is_named_where_ray_tells_of_it_in_a_text_only():
    explained = connection.explained(WrappedError(RuntimeError(AS_TEXT.format(raised="ValueError: no such column"))))
    assert str(explained).startswith("the Ray cluster failed (ValueError: no such column); what was finished is kept")


def test_an_error_that_says_nothing_is_not_what_is_told():
    explained = connection.explained(WrappedError(RuntimeError()))
    assert str(explained).startswith("the Ray cluster failed (WrappedError: a traceback); what was finished is kept")


def test_a_lost_head_node_ends_the_process_with_a_sentence(monkeypatch, capsys):
    import threading

    monkeypatch.setattr(connection, "SECONDS_BETWEEN_LOOKS", 0.01)
    ended = []
    monkeypatch.setattr(connection.os, "_exit", ended.append)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    connection.watch(f"127.0.0.1:{port}", threading.Event())
    assert ended == [1]
    assert f"the head node of the Ray cluster at 127.0.0.1:{port} is lost; what was finished" in capsys.readouterr().err


def test_an_error_about_a_missing_extra_travels():
    import pickle

    error = pickle.loads(pickle.dumps(MissingExtraError("ann", "approximate search")))
    assert (error.extra, str(error)) == ("ann", str(MissingExtraError("ann", "approximate search")))


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        (["a.parquet", "--ray"], ["a.parquet", "--ray", "auto"]),
        (["--ray", "a.parquet"], ["--ray", "auto", "a.parquet"]),
        (["--ray", "local", "a"], ["--ray", "local", "a"]),
        (["--ray", "[::1]:6379"], ["--ray", "[::1]:6379"]),
        (["--ray=head:6379"], ["--ray=head:6379"]),
        (["a", "--out", "b"], ["a", "--out", "b"]),
    ],
)
def test_the_address_of_ray_may_be_left_out(words, spelled):
    assert with_address(words) == spelled
