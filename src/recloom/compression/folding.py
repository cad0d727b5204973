"""Item text -> part of the item vectors, so that a model that is only to answer need not carry the text.

Shapes: I catalogue (with the padding row), D width, E width of text embeddings, F width of whitened ones.
"""

from dataclasses import replace

import numpy as np
import torch

from recloom.compression.members import weaves_of
from recloom.fitting import blank_model
from recloom.models import ItemText, Sharded
from recloom.models.item_vectors import ItemVectors
from recloom.models.weave import Weave
from recloom.recommender import Recommender
from recloom.sharded_fitting import is_blank

FOLDABLE = ("text", "sum", "concat", "init")
"""Fusions in which the text part of a vector is a linear map of the text: it can become part of the id's."""


def fold_text(recommender: Recommender) -> Recommender:
    """Return a recommender of equal answers whose id embeddings are the item vectors as they came out.

    The map from text to vectors stays, so that an item that comes later is still placed by its text. What has no
    text, or mixes it in another way (`gated`, `separate`), is returned as it is.
    """
    text, members = recommender.text, weaves_of(recommender.model)
    options = members[0].config
    if text is None or options.fusion not in FOLDABLE:
        return recommender
    features = min(options.embedding_dim, _items(members[0]).from_text.in_features)
    config = replace(recommender.config, model=replace(options, fusion="sum", text_dim=features))
    no_text = ItemText(np.zeros_like(text.vectors_IE), text.titles, text.read)
    folded = blank_model(recommender.dataset, config, no_text)
    is_sharded = isinstance(recommender.model, Sharded)
    weights = folded.state_dict()
    for number, member in enumerate(members):
        if not (is_sharded and is_blank(member)):  # one that has learned nothing stays zero, as the new one is
            prefix = f"shards.{number}." if is_sharded else ""
            weights |= {prefix + name: values for name, values in _folded(member, features).items()}
    folded.load_state_dict(weights)
    lineage = recommender.run.lineage | {"folded": True}
    run = replace(recommender.run, lineage=lineage)
    return Recommender(recommender.dataset, folded, config, no_text, recommender.counts_I, run)


def _items(model: Weave) -> ItemVectors:
    items = model.eval()._towers[0].items
    assert isinstance(items, ItemVectors)
    return items


def _folded(model: Weave, features: int) -> dict[str, torch.Tensor]:
    """Return the weights of a model whose item vectors are ids, and of the map from so many features of a text."""
    old, width = _items(model), model.config.embedding_dim
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
    return weights
