"""A language model by its name on the hub, downloaded by huggingface_hub into its own cache."""

import re
from pathlib import Path

from recloom.errors import ConfigError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""What names on the hub look like: "owner/model"."""
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*/config.json")


def hub_folder(name: str) -> Path:
    """Return the local folder of a hub model, downloading what is not there yet.

    Args:
        name: "owner/model".

    Raises:
        ConfigError: The hub has no such model or cannot be reached, and the model was not downloaded before.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, "model*.safetensors"]))
        if not list(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, "pytorch_model*.bin"]))
    except Exception as error:  # the hub's client raises of every kind; its first sentence is the reason
        reason = re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".")
        raise ConfigError(
            f"the encoder {name!r} cannot be fetched from the hub ({reason}); the hub may be out of reach or the name"
            " misspelt: pass a folder with the model instead"
        ) from error
    return folder
