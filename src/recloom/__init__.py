"""Predict what each person does next, from what people did and what the items say."""

from recloom.dataset import Dataset, Interaction
from recloom.recommender import RankedList, Recommendation, Recommender
from recloom.version import __version__

__all__ = ["Dataset", "Interaction", "RankedList", "Recommendation", "Recommender", "__version__"]
