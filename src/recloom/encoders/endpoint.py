"""An embeddings service that speaks OpenAI's protocol: POST /embeddings."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from functools import cached_property
from http.client import HTTPException
from typing import Any

import numpy as np

from recloom.encoders.encoder import Progress
from recloom.errors import ConfigError, EncodingError

TEXTS_PER_REQUEST = 128
CHARACTERS_PER_TOKEN = 4
"""The service counts tokens, not we: a text is cut after this many characters for each token allowed."""
TRIES = 5
BACKOFF_SECONDS = 0.5
"""Pause before the first retry; it doubles each time, unless the service says how long to wait."""
LONGEST_PAUSE_SECONDS = 30.0
TIMEOUT_SECONDS = 60.0


class EndpointEncoder:
    """Have texts read by a service; URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY.

    A busy or failing service (429, 5xx, no connection) is asked again a few times. The key goes into a
    header and nowhere else, and not to an address the service redirects to.

    Args:
        model: The service's name of the model.
        prompt: Put before every text.
        max_tokens: Longest text sent, at about four characters a token.

    Raises:
        ConfigError: OPENAI_BASE_URL is not set, or is no web address.
    """

    def __init__(self, model: str, *, prompt: str | None = None, max_tokens: int = 128) -> None:
        base = service_address(f"the encoder 'openai:{model}'")
        self._url = f"{base.rstrip('/')}/embeddings"
        self._service = without_password(base)
        self._key = os.environ.get("OPENAI_API_KEY", "")
        self._model = model
        self._prompt = prompt or ""
        self._max_characters = max_tokens * CHARACTERS_PER_TOKEN
        self.fingerprint = f"openai:{model} at={self._service} prompt={self._prompt!r} max_tokens={max_tokens}"

    @cached_property
    def embedding_dim(self) -> int:
        """Width E of the vectors, learned from a first request."""
        return int(self._request(["width"]).shape[1])

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 vectors of shape (N, E), as the service gives them.

        Raises:
            ConfigError: The service refuses the key or the model.
            EncodingError: The service cannot be reached, or answers something else than one vector a text.
        """
        blocks = [np.zeros((0, self.embedding_dim), dtype=np.float32)]
        for begin in range(0, len(texts), TEXTS_PER_REQUEST):
            block = [(self._prompt + text)[: self._max_characters] for text in texts[begin : begin + TEXTS_PER_REQUEST]]
            blocks.append(self._request(block))
            if blocks[-1].shape[1] != self.embedding_dim:
                raise self._nonsense(f"vectors of {blocks[-1].shape[1]} numbers after some of {self.embedding_dim}")
            if progress:
                progress(begin + len(block), len(texts))
        return np.concatenate(blocks)

    def _request(self, texts: Sequence[str]) -> np.ndarray:
        body = json.dumps({"model": self._model, "input": list(texts), "encoding_format": "float"}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self._url, body, headers)
        return self._vectors(self._send(request), len(texts))

    def _send(self, request: urllib.request.Request) -> bytes:
        """Return the body of the answer, asking again while the service is busy."""
        for attempt in range(TRIES):
            pause = BACKOFF_SECONDS * 2**attempt
            try:
                with OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    said = self._said(error)
                if error.code != 429 and error.code < 500:
                    raise self._refusal(error.code, said) from None
                problem = f"answered {error.code}{said}"
                pause = _retry_after(error) or pause
            except (OSError, HTTPException) as error:
                problem = f"cannot be reached ({getattr(error, 'reason', error)})"
            if attempt + 1 < TRIES:
                time.sleep(min(pause, LONGEST_PAUSE_SECONDS))
        raise EncodingError(
            f"the embeddings service {self._service} {problem} after {TRIES} tries; check OPENAI_BASE_URL, or try later"
        )

    def _refusal(self, code: int, said: str) -> Exception:
        if code in (401, 403):
            return ConfigError(
                f"the embeddings service {self._service} refused the key ({code}{said});"
                " set OPENAI_API_KEY to a valid one"
            )
        return ConfigError(
            f"the embeddings service {self._service} answered {code}{said} for the model {self._model!r};"
            " check OPENAI_BASE_URL and the model's name"
        )

    def _said(self, error: urllib.error.HTTPError) -> str:
        """Return the service's own words, without the key should it repeat it."""
        words = " ".join(error.read(500).decode("utf-8", "replace").split())
        return f": {words.replace(self._key, '***') if self._key else words}" if words else ""

    def _vectors(self, answer: bytes, count: int) -> np.ndarray:
        """Put the vectors into the order of the texts: each says by `index` which text it is of."""
        try:
            data: Any = json.loads(answer)["data"]
            vectors = {int(entry["index"]): np.asarray(entry["embedding"], dtype=np.float32) for entry in data}
        except (ValueError, KeyError, TypeError):
            raise self._nonsense("no list of embeddings") from None
        if len(data) != count or set(vectors) != set(range(count)):
            raise self._nonsense(f"{len(data)} embeddings for {count} texts, or with wrong indices")
        if len({vector.shape for vector in vectors.values()}) != 1 or vectors[0].ndim != 1:
            raise self._nonsense("embeddings of different lengths")
        return np.stack([vectors[index] for index in range(count)])

    def _nonsense(self, found: str) -> EncodingError:
        return EncodingError(
            f"the embeddings service {self._service} answered {found}; wanted one embedding for each text,"
            " as OpenAI's /embeddings gives them"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Make a redirect an error, since urllib would send the key along to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirect)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Return the seconds the service asks to wait, 0 where it says nothing or gives a date."""
    try:
        return max(0.0, float(error.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0


def service_address(what: str) -> str:
    """Return the address in OPENAI_BASE_URL.

    Args:
        what: What needs it, for the message.

    Raises:
        ConfigError: It is not set, or is no web address.
    """
    base = os.environ.get("OPENAI_BASE_URL", "")
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        found = f"is {without_password(base)!r}" if base else "is not set"
        raise ConfigError(
            f"{what} needs the address of a service, but OPENAI_BASE_URL {found};"
            " set it to one such as http://localhost:8080/v1"
        )
    return base


def without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
