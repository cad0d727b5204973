"""Predict what each person does next, from what people did and what the items say."""

import os

# Threads of OpenMP spin while they wait for each other. When anything else wants the same cores, a training step
# of a small network takes 10 to 30 times as long that way (measured in benchmarks/training-threads.md); sleeping costs
# nothing that could be measured. It has to be said before torch is first imported, and yields to a user's own setting.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from recloom.dataset import Dataset, Interaction
from recloom.recommender import RankedList, Recommendation, Recommender
from recloom.version import __version__

__all__ = ["Dataset", "Interaction", "RankedList", "Recommendation", "Recommender", "__version__"]
