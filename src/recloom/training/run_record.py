"""What a reader needs to know of a training run to believe its numbers, and to repeat it."""

import os
import platform
import resource
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from recloom.version import __version__

BYTES_PER_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class RunRecord:
    """The record of one fit, kept in `metrics.json`."""

    dataset: str
    """Fingerprint of the data."""
    split: str
    """Fingerprint of what was learned from and what was held out."""
    encoder: str | None
    """Fingerprint of the encoder that read the item text."""
    stopped: str | None
    """Why training ended: patience, epochs, budget or interrupted; None for a model without training."""
    best_epoch: int | None
    validation_ndcg_at_10: float | None
    refit: bool
    """Whether the final weights were learned with the validation interactions too."""
    seconds: dict[str, float]
    """Wall time of each stage."""
    peak_memory_bytes: int
    warnings: list[str]
    """What whoever relies on the model should know."""
    curve: list[dict[str, Any]]
    """Each epoch's loss, validation NDCG@10 and seconds since the start."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    lineage: dict[str, Any] = field(default_factory=dict)
    """What the model came from, where it was not fitted from nothing."""
    modalities: dict[str, str] = field(default_factory=dict)
    """What was read beside text, by the catalogue's column: the fingerprint of the image encoder, "" for vectors."""
    shards: list[dict[str, Any]] = field(default_factory=list)
    """How the member of each shard came about, where people were dealt over shards: its `ShardRecord`."""
    privacy: dict[str, Any] = field(default_factory=dict)
    """What was promised to the people it learned from, where anything was: a `PrivacyRecord`."""


def peak_memory_bytes() -> int:
    """Return the most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_RSS_UNIT


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    packages = ("torch", "transformers", "numpy", "polars")
    return {"recloom": __version__, "python": platform.python_version()} | {p: version(p) for p in packages}


def hardware() -> dict[str, Any]:
    """Return what the run had to work with, without naming the machine."""
    return {
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
