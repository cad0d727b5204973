"""Item text -> part of the item vectors, so that a model that is only to answer need not carry the text.

Shapes: I catalogue (with the padding row), D width, E width of text embeddings, F width of whitened ones.
"""

from dataclasses import replace

import numpy as np
import torch

from recloom.models.item_vectors import modalities
from recloom.models.text_features import Whitening
from recloom.models.weave import Weave
from recloom.recommender import Recommender

FOLDABLE = ("text", "sum", "concat", "init")
"""Fusions in which the text part of a vector is a linear map of the text: it can become part of the id's."""


def fold_text(recommender: Recommender) -> Recommender:
    """Return a recommender of equal answers whose id embeddings are the item vectors as they came out.

    The map from text to vectors stays, so that an item that comes later is still placed by its text. What has no
    text, or mixes it in another way (`gated`, `separate`), is returned as it is.
    """
    model, text = recommender.model, recommender.text
    assert isinstance(model, Weave)
    if text is None or model.config.fusion not in FOLDABLE:
        return recommender
    old, width = model.eval()._towers[0].items, model.config.embedding_dim
    others = modalities(old.others)
    features = min(width, max(one.in_features for one in (old.from_text, *(other.to_vector for other in others))))
    config = replace(recommender.config, model=replace(model.config, fusion="sum", text_dim=features))
    no_text = text.with_vectors([np.zeros_like(vectors_IE) for vectors_IE in text.all_vectors], text.titles)
    folded = Weave(config.model, recommender.dataset, no_text)
    place = "towers.0.items."
    weights = {name: values for name, values in model.state_dict().items() if not name.startswith(place)}
    with torch.no_grad():
        weights[place + "ids.weight"] = old(torch.arange(model.num_items + 1))
    weights[place + "seen_I"] = torch.ones(model.num_items + 1, dtype=torch.bool)
    maps = {"": (old.whitening, old.from_text, "from_text")}
    maps |= {f"others.{n}.": (other.whitening, other.to_vector, "to_vector") for n, other in enumerate(others)}
    for part, (whitening, to_vector, name) in maps.items():
        projection_EF, to_vector_DF = _widened(whitening, to_vector, width, features)
        weights[f"{place}{part}{name}.weight"] = to_vector_DF
        weights[f"{place}{part}whitening.mean_E"] = whitening.mean_E
        weights[f"{place}{part}whitening.projection_EF"] = projection_EF
    folded.load_state_dict(weights)
    return Recommender(recommender.dataset, folded, config, no_text, recommender.counts_I, recommender.run)


def _widened(
    whitening: Whitening, to_vector: torch.nn.Linear, width: int, features: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return whitening and map of a vector of full width, by way of at most so many features."""
    to_vector_DF = torch.zeros(width, to_vector.in_features)
    # Where id and text have coordinates of their own, those of the text come last.
    to_vector_DF[width - to_vector.out_features :] = to_vector.weight.detach()
    projection_EF = whitening.projection_EF
    if features == width <= len(projection_EF):
        # Two linear maps, one after the other, are one; it takes the place of the wider.
        return projection_EF @ to_vector_DF.T, torch.eye(width)
    return projection_EF, to_vector_DF
