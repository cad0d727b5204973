"""Histories and item embeddings come in; scores of the whole catalogue go out."""

from recloom.models.classic import (
    EASE,
    MF,
    NCF,
    STAN,
    VSKNN,
    Content,
    ContentTfidf,
    ItemKNN,
    Markov,
    Popular,
    PopularRecent,
    RandomOrder,
    TwoTower,
    UserKNN,
)
from recloom.models.ensemble import Ensemble
from recloom.models.gathered_lists import gathered_lists
from recloom.models.interface import (
    CountedModel,
    ItemText,
    Model,
    Span,
    TrainedModel,
    TrainingData,
    VectorModel,
    moved,
)
from recloom.models.item_text import Modality, Said
from recloom.models.lm_fusion import LMFusion
from recloom.models.pretrained import Pretrained
from recloom.models.ranking import Ranker, Rankings
from recloom.models.sharded import Sharded
from recloom.models.teacher import Teacher
from recloom.models.weave import Weave

MODELS: dict[str, type[Model]] = {
    model.name: model
    for model in (
        Weave,
        LMFusion,
        TwoTower,
        NCF,
        MF,
        EASE,
        ItemKNN,
        UserKNN,
        VSKNN,
        STAN,
        Markov,
        Content,
        ContentTfidf,
        PopularRecent,
        Popular,
        RandomOrder,
    )
}
"""Every model by the name users call it."""

__all__ = [
    "MODELS",
    "NCF",
    "CountedModel",
    "Ensemble",
    "ItemText",
    "Modality",
    "Model",
    "Popular",
    "PopularRecent",
    "Pretrained",
    "RandomOrder",
    "Ranker",
    "Rankings",
    "Said",
    "Sharded",
    "Span",
    "Teacher",
    "TrainedModel",
    "TrainingData",
    "VectorModel",
    "Weave",
    "gathered_lists",
    "moved",
]
