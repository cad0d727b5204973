"""Sequences and item embeddings come in; scores of the whole catalogue go out. One file per model."""

from recloom.models.content import Content
from recloom.models.interface import CountedModel, ItemText, Model, TrainedModel, TrainingData
from recloom.models.lm_fusion import LMFusion
from recloom.models.popular import Popular, PopularRecent
from recloom.models.ranking import Ranker, Rankings
from recloom.models.teacher import Teacher
from recloom.models.weave import Weave

MODELS: dict[str, type[Model]] = {model.name: model for model in (Weave, LMFusion, Popular, PopularRecent, Content)}
"""Every model by the name users call it."""

__all__ = [
    "MODELS",
    "Content",
    "CountedModel",
    "ItemText",
    "LMFusion",
    "Model",
    "Popular",
    "PopularRecent",
    "Ranker",
    "Rankings",
    "Teacher",
    "TrainedModel",
    "TrainingData",
    "Weave",
]
