"""Item text -> part of the item vectors, so that a model that is only to answer need not carry the text.

Shapes: I catalogue (with the padding row), D width, E width of text embeddings, F width of whitened ones.
"""

from dataclasses import replace

import numpy as np
import torch

from recloom.compression.members import weaves_of
from recloom.fitting import blank_model
from recloom.models import Sharded
from recloom.models.item_vectors import ItemVectors, modalities
from recloom.models.text_features import Whitening
from recloom.models.weave import Weave
from recloom.recommender import Recommender
from recloom.sharded_fitting import is_blank

FOLDABLE = ("text", "sum", "concat", "init", "likeness")
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
    first = _tables(members[0])[0]
    maps = (first.from_text, *(other.to_vector for other in modalities(first.others)))
    features = min(options.embedding_dim, max(one.in_features for one in maps))
    training = replace(recommender.config.training, pretrained=None)  # it has another form
    fusion = "likeness" if options.fusion == "likeness" else "sum"
    config = replace(recommender.config, model=replace(options, fusion=fusion, text_dim=features), training=training)
    no_text = text.with_vectors([np.zeros_like(vectors_IE) for vectors_IE in text.all_vectors], text.titles)
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


def _tables(model: Weave) -> list[ItemVectors]:
    return [tower.items for tower in model.eval()._towers if isinstance(tower.items, ItemVectors)]


def _folded(model: Weave, features: int) -> dict[str, torch.Tensor]:
    """Return the weights of a model whose item vectors are ids, and of the maps from so many features of a text."""
    width = model.config.embedding_dim
    weights = {name: values for name, values in model.state_dict().items() if ".items." not in name}
    for number, old in enumerate(_tables(model)):
        place = f"towers.{number}.items."
        with torch.no_grad():
            weights[place + "ids.weight"] = old(torch.arange(model.num_items + 1))
        weights[place + "seen_I"] = torch.ones(model.num_items + 1, dtype=torch.bool)
        maps = {"": (old.whitening, old.from_text, "from_text")}
        for other_number, other in enumerate(modalities(old.others)):
            maps[f"others.{other_number}."] = (other.whitening, other.to_vector, "to_vector")
        for part, (whitening, to_vector, name) in maps.items():
            projection_EF, to_vector_DF = _widened(whitening, to_vector, width, features)
            weights[f"{place}{part}{name}.weight"] = to_vector_DF
            weights[f"{place}{part}whitening.mean_E"] = whitening.mean_E
            weights[f"{place}{part}whitening.projection_EF"] = projection_EF
    return weights


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
