"""Predict what each person does next, from what people did and what the items say."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads of OpenMP spin while they wait for each other. When anything else wants the same cores, a training step
# of a small network takes 10 to 30 times as long that way (measured in benchmarks/training-threads.md); sleeping costs
# nothing that could be measured. It has to be said before torch is first imported, and yields to a user's own setting.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from recloom.dataset import Dataset, Interaction
    from recloom.recommender import RankedList, Recommendation, Recommender
    from recloom.version import __version__

__all__ = ["Dataset", "Interaction", "RankedList", "Recommendation", "Recommender", "__version__"]

_HOMES = {
    "Dataset": "recloom.dataset",
    "Interaction": "recloom.dataset",
    "RankedList": "recloom.recommender",
    "Recommendation": "recloom.recommender",
    "Recommender": "recloom.recommender",
    "__version__": "recloom.version",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: a worker of a cluster that reads a log has no use for torch, which takes seconds.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'recloom' has no attribute {name!r}")
