"""From the name of an encoder to the encoder."""

import difflib
from pathlib import Path

from recloom.encoders.encoder import Encoder
from recloom.encoders.endpoint import EndpointEncoder
from recloom.encoders.hashing import HashingEncoder
from recloom.encoders.hub import HUB_NAME, hub_folder
from recloom.encoders.language_model import LanguageModelEncoder
from recloom.encoders.packaged import minilm_folder, multilingual_folder
from recloom.errors import ConfigError

ENCODER_NAMES = ("minilm", "multilingual", "hashing")
"""Encoders that need no folder, hub or service."""


def load_encoder(
    name: str, *, prompt: str | None = None, max_tokens: int = 128, int8: bool = False, device: str = "cpu"
) -> Encoder:
    """Load an encoder by name.

    Args:
        name: `minilm` (English, the default of recloom), `multilingual` (e5, about 100 languages),
            `hashing` (no language model), `openai:MODEL` (a service that speaks OpenAI's embeddings
            protocol, at OPENAI_BASE_URL), a folder, or a name on the hub ("owner/model").
        prompt: Put before every text; None takes the model's own.
        max_tokens: Longest text read, in tokens; the rest is cut off.
        int8: Read with 8-bit weights in ONNX Runtime: faster on most processors, vectors a little different.
        device: Where torch runs a language model.

    Raises:
        ConfigError: Nothing has this name.
        MissingExtraError: The encoder's package is not installed.
        ArtifactError: Its files are damaged or incomplete.
    """
    if name == "hashing":
        return HashingEncoder()
    if name.startswith("openai:"):
        return EndpointEncoder(name.removeprefix("openai:"), prompt=prompt, max_tokens=max_tokens)
    return LanguageModelEncoder(
        model_folder(name), name=name, prompt=prompt, max_tokens=max_tokens, int8=int8, device=device
    )


def model_folder(name: str) -> Path:
    if name == "minilm":
        return minilm_folder()
    if name == "multilingual":
        return multilingual_folder()
    if Path(name).is_dir():
        return Path(name)
    if HUB_NAME.fullmatch(name):
        return hub_folder(name)
    nearest = difflib.get_close_matches(name, ENCODER_NAMES, n=1)
    raise ConfigError(
        f"unknown encoder {name!r}; {f'did you mean {nearest[0]!r}? ' if nearest else ''}there are"
        f" {', '.join(ENCODER_NAMES)}, openai:MODEL, a folder, or a hub name such as owner/model"
    )
