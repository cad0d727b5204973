import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from recloom.encoders import encode_texts, endpoint, load_encoder
from recloom.errors import ConfigError, EncodingError

KEY = "sk-a-secret-nobody-may-see"


class Service:
    """A local embeddings service: the vector of a text is its length and its first character."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.keys: list[str] = []
        self.failures: list[tuple[int, dict[str, str], str]] = []
        self.change = lambda answer: answer

    def answer(self, path: str, key: str, body: dict) -> tuple[int, dict[str, str], str]:
        self.requests.append(body)
        self.keys.append(key)
        if self.failures:
            return self.failures.pop(0)
        if path != "/v1/embeddings":
            return 404, {}, "no such page"
        data = [{"index": i, "embedding": [len(text), ord(text[0])]} for i, text in enumerate(body["input"])]
        changed = self.change({"data": data[::-1]})  # the order is in the index, not in the list
        return 200, {}, changed if isinstance(changed, str) else json.dumps(changed)


@pytest.fixture
def service(monkeypatch):
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, headers, text = service.answer(self.path, self.headers.get("Authorization", ""), body)
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(endpoint, "BACKOFF_SECONDS", 0.001)
        yield service
        server.shutdown()


def test_vectors_come_back_in_the_order_of_the_texts(service):
    vectors = load_encoder("openai:small").encode(["abc", "z"])
    np.testing.assert_array_equal(vectors, [[3, ord("a")], [1, ord("z")]])
    assert vectors.dtype == np.float32
    assert service.requests[-1] == {"model": "small", "input": ["abc", "z"], "encoding_format": "float"}
    assert set(service.keys) == {f"Bearer {KEY}"}


def test_long_lists_go_in_several_requests(service, monkeypatch):
    monkeypatch.setattr(endpoint, "TEXTS_PER_REQUEST", 2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    seen = []
    vectors = load_encoder("openai:small").encode(texts, progress=lambda done, total: seen.append((done, total)))
    assert vectors[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert [len(request["input"]) for request in service.requests[1:]] == [2, 2, 1]
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_texts_are_prompted_and_cut(service):
    load_encoder("openai:small", prompt="query: ", max_tokens=3).encode(["a long text"])
    assert service.requests[-1]["input"] == ["query: a lon"]


def test_a_service_without_keys_is_asked_without_one(service, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    load_encoder("openai:small").encode(["a"])
    assert set(service.keys) == {""}


def test_a_busy_service_is_asked_again(service):
    service.failures = [(429, {"Retry-After": "0.01"}, ""), (503, {}, ""), (500, {"Retry-After": "tomorrow"}, "")]
    assert load_encoder("openai:small").encode(["abc"])[0, 0] == 3


def test_pauses_grow_unless_the_service_says_how_long_and_stay_within_reason(service, monkeypatch):
    slept = []
    monkeypatch.setattr(endpoint.time, "sleep", slept.append)
    service.failures = [(429, {}, ""), (429, {}, ""), (429, {"Retry-After": "7"}, ""), (503, {"Retry-After": "99"}, "")]
    load_encoder("openai:small").encode(["a"])
    assert slept == [0.001, 0.002, 7.0, 30.0]


def test_the_fingerprint_names_the_service_but_not_the_key(service):
    fingerprint = load_encoder("openai:small", prompt="query: ").fingerprint
    assert fingerprint.startswith("openai:small at=http://127.0.0.1")
    assert KEY not in fingerprint


def test_a_service_that_stays_busy_is_an_error_after_some_tries(service):
    service.failures = [(429, {}, "slow down")] * 99
    with pytest.raises(EncodingError, match=r"answered 429: slow down after 5 tries; check OPENAI_BASE_URL, or try"):
        load_encoder("openai:small").encode(["a"])
    assert len(service.requests) == 5


def test_an_encoding_survives_the_cache(service, tmp_path):
    texts = ["abc", "z"]
    first = encode_texts(load_encoder("openai:small"), texts, cache=tmp_path / "embeddings.h5")
    again = encode_texts(load_encoder("openai:small"), texts, cache=tmp_path / "embeddings.h5")
    np.testing.assert_array_equal(first, again)
    assert service.requests[-1]["input"] == ["width"]  # only the width was asked for


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, r"refused the key \(401: .*\); set OPENAI_API_KEY"),
        (403, "refused the key"),
        (404, "answered 404.* for the model 'small'"),
        (302, "answered 302.* for the model 'small'"),
    ],
)
def test_a_refusal_is_said_at_once_and_without_the_key(service, code, words):
    service.failures = [(code, {"Location": "http://127.0.0.1:9/"}, f"Incorrect API key provided: {KEY}")]
    with pytest.raises(ConfigError, match=words) as caught:
        load_encoder("openai:small").encode(["a"])
    assert KEY not in str(caught.value)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda answer: "<html>", "answered no list of embeddings"),
        (lambda answer: [], "answered no list of embeddings"),
        (lambda answer: {"data": [{"index": 0}]}, "answered no list of embeddings"),
        (lambda answer: {"data": answer["data"][1:]}, "answered 2 embeddings for 3 texts"),
        (lambda answer: {"data": [entry | {"index": 0} for entry in answer["data"]]}, "with wrong indices"),
        (lambda answer: {"data": [e | {"embedding": [1] * (e["index"] + 1)} for e in answer["data"]]}, "lengths"),
        (lambda answer: {"data": [e | {"embedding": [1, 2, 3]} for e in answer["data"]]}, "3 numbers after some of 2"),
    ],
)
def test_a_nonsense_answer_is_an_error(service, change, words):
    encoder = load_encoder("openai:small")
    assert encoder.embedding_dim == 2
    service.change = change
    with pytest.raises(EncodingError, match=words):
        encoder.encode(["a", "b", "c"])


def test_a_service_out_of_reach_is_an_error(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:pass@127.0.0.1:9/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(endpoint, "BACKOFF_SECONDS", 0.001)
    with pytest.raises(EncodingError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached .* after 5 tries"):
        load_encoder("openai:small").encode(["a"])


@pytest.mark.parametrize(("url", "words"), [(None, "is not set"), ("localhost:8080", "is 'localhost:8080'")])
def test_without_an_address_the_error_names_the_variable(monkeypatch, url, words):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ConfigError, match=f"OPENAI_BASE_URL {words}; set it to one such as http://localhost"):
        load_encoder("openai:small")
