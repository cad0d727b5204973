"""Item text -> part of the item vectors, so that a model that is only to answer need not carry the text.

Shapes: I catalogue (with the padding row), D width, E width of text embeddings, F width of whitened ones.
"""

from dataclasses import replace

import numpy as np
import torch

from recloom.models import ItemText
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
    features = min(width, old.from_text.in_features)
    config = replace(recommender.config, model=replace(model.config, fusion="sum", text_dim=features))
    no_text = ItemText(np.zeros_like(text.vectors_IE), text.titles, text.read)
    folded = Weave(config.model, recommender.dataset, no_text)
    from_text_DF = torch.zeros(width, old.from_text.in_features)
    # Where id and text have coordinates of their own, those of the text come last.
    from_text_DF[width - old.from_text.out_features :] = old.from_text.weight.detach()
    projection_EF = old.whitening.projection_EF
    if features == width:
        # Two linear maps, one after the other, are one; it takes the place of the wider.
        projection_EF, from_text_DF = projection_EF @ from_text_DF.T, torch.eye(width)
    place = "towers.0.items."
    weights = {name: values for name, values in model.state_dict().items() if not name.startswith(place)}
    with torch.no_grad():
        weights[place + "ids.weight"] = old(torch.arange(model.num_items + 1))
    weights[place + "seen_I"] = torch.ones(model.num_items + 1, dtype=torch.bool)
    weights[place + "from_text.weight"] = from_text_DF
    weights[place + "whitening.mean_E"] = old.whitening.mean_E
    weights[place + "whitening.projection_EF"] = projection_EF
    folded.load_state_dict(weights)
    return Recommender(recommender.dataset, folded, config, no_text, recommender.counts_I, recommender.run)
