"""Several models, each of which learned from a part of the people: what one of them learned is in no other.

Shapes: B histories, L steps, N items asked for, I catalogue (with the padding row), D width over all members.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recloom.dataset import Dataset, Histories, Segments, shard_of
from recloom.models.interface import Model, TrainedModel, TrainingData, VectorModel


class Sharded(TrainedModel, VectorModel):
    """The mean of what its members say, as one inner product over their vectors side by side.

    People are dealt over shards, and each member learns from those of one shard, so that forgetting somebody is to
    train one member again. A member that has learned nothing is zero throughout and scores every item 0.

    Source: Bourtoule et al. (2021), "Machine Unlearning", https://arxiv.org/abs/1912.03817; for recommenders, Chen et
    al. (2022), https://arxiv.org/abs/2201.06820. Departures: shards are not sliced further; people are dealt by a
    digest of their id and not by what they like, since groups made by taste would have to be made again without
    whoever leaves; and scores are averaged, since attention over members would have learned from everybody.
    """

    name = "sharded"
    can_resume = True

    def __init__(self, members: Sequence[Model], dataset: Dataset) -> None:
        """Begin with members that know nothing.

        Args:
            members: One for each shard, over the whole dataset.
            dataset: Everybody.
        """
        super().__init__(members[0].config, dataset, None)
        self.max_length = members[0].max_length
        self.shards = nn.ModuleList(members)
        with torch.no_grad():
            # What a member has not met stays zero, so that its weights do not depend on what others have met.
            for parameter in self.parameters():
                parameter.zero_()
        self.load_state_dict(self.state_dict())  # members work out from their state what they do not store

    @property
    def members(self) -> list[VectorModel]:
        return [member for member in self.shards if isinstance(member, VectorModel)]

    @property
    def reads_requests(self) -> bool:
        return any(member.reads_requests for member in self.members)

    def row_sources(self, other: Model, source_I: Tensor) -> dict[str, Tensor]:
        assert isinstance(other, Sharded)
        return {
            f"shards.{number}.{name}": source_R
            for number, (member, before) in enumerate(zip(self.members, other.members, strict=True))
            for name, source_R in member.row_sources(before, source_I).items()
        }

    def resume(self, data: TrainingData, numbers: Collection[int] | None = None) -> None:
        """Take from grown or shrunk data what depends on it without learning.

        Args:
            data: Everybody.
            numbers: Which members to look at, each at its own people. None: all.
        """
        shard_U = np.array([-1, *(shard_of(user, len(self.shards)) for user in data.dataset.users.ids)])
        start_U, end_U = data.segments.start, data.segments.end
        for number, member in enumerate(self.members):
            assert isinstance(member, TrainedModel)
            if numbers is None or number in numbers:
                # A stretch for everybody, empty for those of other shards.
                own = Segments(start_U, np.where(shard_U == number, end_U, start_U))
                member.resume(TrainingData(data.dataset, own))

    def read_items(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        for member in self.members:
            member.read_items(rows_N, embedding_NE)

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return torch.cat([member.item_vectors(rows_N) for member in self.members], dim=1)

    def similarity_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return torch.cat([member.similarity_vectors(rows_N) for member in self.members], dim=1)

    def queries(self, histories: Histories) -> Tensor:
        return torch.cat([member.queries(histories) for member in self.members], dim=1) / len(self.shards)

    def branch_queries(self, histories: Histories, num_shared: int) -> Tensor:
        queries = [member.branch_queries(histories, num_shared) for member in self.members]
        return torch.cat(queries, dim=1) / len(self.shards)

    def score_parts(self, query_D: Tensor, rows_N: Tensor) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        begin = 0
        for member in self.members:
            width = member.item_vectors(rows_N[:1]).shape[1]
            for name, part_N in member.score_parts(query_D[begin : begin + width], rows_N).items():
                parts[name] = parts.get(name, 0.0) + part_N
            begin += width
        return parts

    def step_queries(self, histories: Histories) -> Tensor:
        return torch.cat([member.step_queries(histories) for member in self.members], dim=2) / len(self.shards)

    def loss(self, histories: Histories) -> Tensor:
        raise NotImplementedError  # each member is trained by itself, on a dataset of its own: recloom.sharded_fitting
