"""Predict what each person does next, from what people did and what the items say."""

__version__ = "0.1.0"

from recloom.dataset import Dataset, Interaction
from recloom.recommender import RankedList, Recommendation, Recommender

__all__ = ["Dataset", "Interaction", "RankedList", "Recommendation", "Recommender", "__version__"]
