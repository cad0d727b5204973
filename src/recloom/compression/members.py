"""A model -> the `weave`s in it: itself, or the members of a model of shards."""

from recloom.models import Model, Sharded
from recloom.models.weave import Weave


def weaves_of(model: Model) -> list[Weave]:
    """Return the members of a model of shards, or the model itself; none where it is another kind of model."""
    members = model.members if isinstance(model, Sharded) else [model]
    return [member for member in members if isinstance(member, Weave)]
