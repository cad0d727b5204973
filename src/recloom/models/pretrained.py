"""What `weave` learned elsewhere and what carries over to any catalogue, as a folder of a few megabytes."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recloom.errors import ArtifactError, ConfigError
from recloom.files import CHECKSUMS, damaged_file, file_digest, recover, replacing, write_checksums
from recloom.version import __version__

KIND, FORMAT_VERSION = "recloom-pretrained", 2
WEIGHTS = "pretrained.safetensors"
REQUIRED_FILES = ("config.toml", "metrics.json", WEIGHTS, CHECKSUMS)
SHAPES = (
    "network",
    "embedding_dim",
    "hidden_dim",
    "num_layers",
    "num_heads",
    "text_dim",
    "max_length",
    "half_life",
    "similarity",
    "temperature",
)
"""Options of the [model] table that decide the form or the scale of what was learned: they come with it."""


@dataclass(frozen=True)
class Pretrained:
    """The parts of a `weave` that are about no particular item or person: how text is placed, and how it is read on.

    Nothing of the items, texts or people it was learned from is among them.
    """

    options: Mapping[str, Any]
    """The `SHAPES` of it."""
    encoder: Mapping[str, Any]
    """Options of the [encoder] table that read its texts: `name`, `max_tokens`, `int8`."""
    fingerprint: str
    """Of that encoder: vectors of another one mean nothing to it."""
    circumstances: tuple[tuple[str, str], ...]
    """What each row of the table of circumstances means: a kind such as "gap" or "behavior", and which one."""
    tensors: Mapping[str, Tensor]
    digest: str = ""
    """Names the folder's content; "" for what was not stored yet."""

    def save(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Write a folder, which takes the place of an earlier pretrained model there.

        Args:
            folder: Where to.
            record: How it came about, for people to read.

        Raises:
            ConfigError: The folder holds something else.
        """
        check_replaceable(folder)
        tables = {
            "recloom": {"kind": KIND, "format": FORMAT_VERSION, "version": __version__},
            "model": dict(self.options),
            "encoder": {**self.encoder, "fingerprint": self.fingerprint},
        }
        record = {**record, "circumstances": [list(meaning) for meaning in self.circumstances]}
        with replacing(folder) as beside:
            beside.mkdir()
            (beside / "config.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
            (beside / "metrics.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
            save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, beside / WEIGHTS)
            write_checksums(beside)

    @classmethod
    def load(cls, folder: Path) -> "Pretrained":
        """Open what `save` wrote.

        Raises:
            ArtifactError: The folder is not one, is damaged, or was written by another version.
        """
        recover(folder)
        if missing := [name for name in REQUIRED_FILES if not (folder / name).is_file()]:
            raise ArtifactError(
                f"{folder} is not a pretrained model: it lacks {missing[0]}; make one with: recloom pretrain DATASET"
                " --out PRETRAINED"
            )
        if damaged := damaged_file(folder):
            raise ArtifactError(f"the pretrained model in {folder} is damaged: {damaged} is not what was written")
        try:
            tables = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
            facts, encoder = tables["recloom"], tables["encoder"]
            if (facts["kind"], facts["format"]) != (KIND, FORMAT_VERSION):
                raise ArtifactError(
                    f"{folder} is a {facts['kind']} of format {facts['format']} written by recloom {facts['version']},"
                    f" this recloom {__version__} reads format {FORMAT_VERSION}; pretrain it again"
                )
            record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            return cls(
                options=tables["model"],
                fingerprint=encoder.pop("fingerprint"),
                encoder=encoder,
                circumstances=tuple((kind, value) for kind, value in record["circumstances"]),
                tensors=load_file(folder / WEIGHTS),
                digest=file_digest(folder / CHECKSUMS)[:12],
            )
        except (SafetensorError, tomllib.TOMLDecodeError, json.JSONDecodeError, KeyError, ValueError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"the pretrained model in {folder} is damaged ({error}); pretrain it again") from None


def check_replaceable(folder: Path) -> None:
    """Make sure that saving into a folder would replace a pretrained model or nothing.

    Raises:
        ConfigError: The folder holds something else.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / WEIGHTS).exists()):
        raise ConfigError(
            f"{folder} holds something that is not a pretrained model, and would be replaced; choose another folder"
        )
