"""What every model is: a way from histories to a score of every item.

Shapes: B histories, L steps, I catalogue (with the padding row), D width, E width of embeddings.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import SECONDS_PER_DAY, Dataset, Histories, Segments, SplitConfig
from recloom.errors import ConfigError
from recloom.models.item_text import ItemText as ItemText
from recloom.workers import Workers

if TYPE_CHECKING:
    from recloom.models.pretrained import Pretrained
    from recloom.models.teacher import Teacher

ITEMS_AT_ONCE = 2_048
"""Items whose scores are worked out together."""


@dataclass(frozen=True)
class TrainingData:
    """What a model may learn from: a stretch of interactions for each user."""

    dataset: Dataset
    segments: Segments

    def item_counts(self, days: float = np.inf) -> np.ndarray:
        """Return how often each item occurs in the last so many days, by item index; shape (I,), int64."""
        since, num_rows = self.last_timestamp - days * SECONDS_PER_DAY, len(self.dataset.items) + 1
        counts_I = np.zeros(num_rows, dtype=np.int64)
        for block in self.segments.blocks():
            positions = block.positions()
            items, times = self.dataset.item_index[positions], self.dataset.timestamp[positions]
            counts_I += np.bincount(items[times > since], minlength=num_rows)
        return counts_I

    @property
    def last_timestamp(self) -> int:
        """The time of the last interaction, UTC seconds; 0 where there is none."""
        ends = self.segments.end[self.segments.end > self.segments.start]
        return int(self.dataset.timestamp[ends - 1].max(initial=0))  # times ascend within a user


@dataclass(frozen=True)
class Span:
    """Values of an option among which tuning looks: whole numbers if both ends are."""

    low: float
    high: float
    log: bool = False
    """Whether a step from 1 to 2 is as large as one from 10 to 20."""


Scorer = Callable[[Histories], Tensor]
"""From histories, none of them empty, to the score of every item, the padding row included; shape (B, I). In single
precision where it takes products of vectors, which it rounds itself."""


class Model(nn.Module):
    """A recommender.

    A model is built from its config, a dataset and the item text. Whatever it learns lives in parameters
    and persistent buffers, so that one `state_dict` stores any model. Rows follow the dataset's items;
    items that were added since training are scored as far as the model can.
    """

    name: ClassVar[str]
    """What users call it."""
    Config: ClassVar[type[Any]]
    """Its hyperparameters: the [model] table of a run file."""
    uses_text: ClassVar[bool] = True
    """Whether it looks at item text at all."""
    needs_text: ClassVar[bool] = False
    """Whether it can do nothing without item text."""
    uses_modalities: ClassVar[bool] = False
    """Whether it looks at what there is beside text (`ItemText.others`), and does with that alone too."""
    search_space: ClassVar[Mapping[str, Span | Sequence[Any]]] = {}
    """Options that tuning tries, by table and name ("model.dropout"): a span of numbers, or a list of values."""
    max_length: int = 1
    """Most interactions of a history that it looks at."""

    @classmethod
    def defaults_for(cls, dataset: Dataset, split: SplitConfig) -> dict[str, Any]:
        """Return the options whose best value depends on the data, for where the user sets none."""
        return {}

    def __init__(self, config: Any, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__()
        self.config = config
        self.num_items = len(dataset.items)

    @abstractmethod
    def scorer(self) -> Scorer:
        """Return the way from histories to scores, with all that does not depend on histories computed once."""

    @abstractmethod
    def similarity(self, item_index: int) -> Tensor:
        """Return how alike every item is to one, shape (I,)."""

    @property
    def reads_requests(self) -> bool:
        """Whether the time and context in which the next item is asked for make a difference."""
        return False

    def read_items(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        """Take what the language model makes of items that are new or say something else now.

        What was learned stays as it is. A model that reads no text ignores it.

        Args:
            rows_N: Item indices.
            embedding_NE: Their embeddings as `ItemText.read_said` gives them, all zero for an item without text. Where
                these are of text alone, what the model knows of pictures and other modalities stays.
        """

    def row_sources(self, other: "Model", source_I: Tensor) -> dict[str, Tensor]:
        """Say where the rows of tables come from, when this model takes over what another one has learned.

        Args:
            other: A model of the same class and settings over another catalogue.
            source_I: For each item its index in the other catalogue, -1 where that lacks it; shape (I,).

        Returns:
            For each tensor of the state that has rows for things of which there may be more or fewer now: the row of
            the other's tensor that each row comes from, -1 where there is none.
        """
        theirs = other.state_dict()
        return {
            name: source_I
            for name, tensor in self.state_dict().items()
            if tensor.dim() and len(tensor) == self.num_items + 1 and len(theirs[name]) == other.num_items + 1
        }

    def take_over(self, other: "Model", source_I: Tensor) -> None:
        """Begin with what another model has learned; what it does not know stays as it is. Arguments as above."""
        sources, state, theirs = self.row_sources(other, source_I), self.state_dict(), other.state_dict()
        taken = {n: moved(theirs[n], sources[n], fresh) if n in sources else theirs[n] for n, fresh in state.items()}
        self.load_state_dict(taken)

    def can_answer(self, histories: Histories) -> np.ndarray:
        """Return for each history whether the model can say anything about it, shape (B,)."""
        return histories.length_B > 0


class VectorModel(Model):
    """A recommender as an inner-product search: the score of an item is its vector times the query."""

    @abstractmethod
    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        """Return the vectors of some items, or of all with the padding row, shape (I, D)."""

    def similarity_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        """Return what to compare items with each other by: `item_vectors` without what popularity adds."""
        return self.item_vectors(rows_N)

    @abstractmethod
    def queries(self, histories: Histories) -> Tensor:
        """Return one query a history, none of which is empty; shape (B, D)."""

    def branch_queries(self, histories: Histories, num_shared: int) -> Tensor:
        """Return the queries of histories that begin alike, which may be less work than `queries`; shape (B, D).

        Args:
            histories: None of them empty.
            num_shared: Steps at the beginning that all of them share, fewer than the shortest one has.
        """
        return self.queries(histories)

    def score_parts(self, query_D: Tensor, rows_N: Tensor) -> dict[str, Tensor]:
        """Return what each score is the sum of.

        These are `id`, `text`, `popularity`, what popularity gives `any item`, and modalities by name (`image`).

        Args:
            query_D: Of one history.
            rows_N: The items.

        Returns:
            By the name of the part, shape (N,); nothing where the model does not know the parts apart.
        """
        return {}

    def step_queries(self, histories: Histories) -> Tensor:
        """Return the query after each step, nothing being known of the request; shape (B, L, D).

        Raises:
            ConfigError: The model looks at later steps too, so that it has none.
        """
        raise ConfigError(f"{self.name} has no query for each step of a history, so it cannot teach another model")

    def scorer(self) -> Scorer:
        items_DI = self.item_vectors().T.contiguous()
        return lambda histories: rounded_products(self.queries(histories), items_DI)

    def similarity(self, item_index: int) -> Tensor:
        unit_ID = functional.normalize(self.similarity_vectors(), dim=1)
        return unit_ID @ unit_ID[item_index]


def rounded_products(query_BD: Tensor, items_DI: Tensor) -> Tensor:
    """Return query times item in single precision, shape (B, I): in blocks, rounded while they are in the cache."""
    score_BI = torch.empty(len(query_BD), items_DI.shape[1], dtype=torch.float32, device=query_BD.device)
    for begin in range(0, items_DI.shape[1], ITEMS_AT_ONCE):
        some = slice(begin, begin + ITEMS_AT_ONCE)
        score_BI[:, some] = query_BD @ items_DI[:, some]
    return score_BI


class CountedModel(Model):
    """A model that is read off the data in one pass."""

    @abstractmethod
    def count(self, data: TrainingData) -> None:
        """Learn from the data, forgetting what was learned before."""


class TrainedModel(Model):
    """A model that learns by gradient steps."""

    can_resume: ClassVar[bool] = False
    """Whether it can go on learning when users and items have been added."""
    private_options: ClassVar[Mapping[str, Any]] = {}
    """Options under which all it learns from people goes through the gradients of `loss`, for training under
    `privacy.epsilon`, which allows no other values of them. Empty: it cannot be trained so."""
    private_defaults: ClassVar[Mapping[str, Any]] = {}
    """What the options that `defaults_for` reads off people's data are under `privacy.epsilon`."""

    def prepare_privately(self) -> None:
        """Prepare as `prepare` does, from the catalogue alone: nothing of what people did is looked at."""
        raise NotImplementedError  # whoever has private_options has this too

    def prepare(self, data: TrainingData) -> None:
        """Take from the data what training needs beforehand, for instance how often each item occurs."""

    def tune(self, histories: Histories, target_B: Tensor, include_seen: bool, there_I: Tensor) -> None:
        """Choose what gradient steps do not learn, by what validation asked and what the answers were.

        Args:
            histories: Validation histories, none of them empty.
            target_B: The item that followed each.
            include_seen: Whether items of a history may be recommended again.
            there_I: Whether an item can be taken to have been there to choose from, shape (I,).
        """

    def resume(self, data: TrainingData) -> None:
        """Take from grown data what further training needs, leaving what was learned as it is."""

    def tune_like(self, other: "TrainedModel") -> None:
        """Take over what `tune` chose for another model of the same class."""

    @property
    def item_table_bytes(self) -> int:
        """What the tables take that have a row for each item and can be dealt out; 0 where there are none."""
        return 0

    def deal_items(self, workers: Workers) -> None:
        """Keep only some rows of these tables on each worker, and look the others up where they are.

        Raises:
            ConfigError: The model has none.
        """
        raise ConfigError(
            f"training.shard_items is for models whose item table can be dealt over workers; {self.name} has none,"
            " weave has"
        )

    def collect_items(self) -> None:
        """Put the whole tables back on the worker that leads."""

    @property
    def own_items(self) -> Tensor | None:
        """The items whose rows are here; `scorer` scores them alone, in this order. None: all of them are."""
        return None

    def learn_from(self, teacher: "Teacher") -> None:
        """Have the loss follow a teacher's opinion as well.

        Raises:
            ConfigError: The model cannot be taught.
        """
        raise ConfigError(f"{self.name} cannot learn from a teacher; weave can")

    def begin_with(self, pretrained: "Pretrained") -> None:
        """Have `prepare` begin with what was learned on other catalogues.

        Raises:
            ConfigError: The model cannot.
        """
        raise ConfigError(f"{self.name} cannot begin with a pretrained model; weave can")

    @abstractmethod
    def loss(self, histories: Histories) -> Tensor:
        """Return the mean loss of predicting every interaction of each history from those before it.

        Args:
            histories: Windows of at most `max_length` + 1 interactions.
        """


def moved(tensor: Tensor, source_R: Tensor, fresh: Tensor) -> Tensor:
    """Return `fresh` with the rows of another tensor in the places that they have now.

    Args:
        tensor: Rows to move.
        source_R: The row that belongs in each place, -1 where none does.
        fresh: What stands there otherwise.
    """
    result, is_known_R = fresh.clone(), source_R >= 0
    result[is_known_R] = tensor[source_R[is_known_R]].to(fresh)
    return result


def usual_length(segments: Segments) -> int:
    """Return how many interactions a sequence model has to read to see most histories whole: between 20 and 200."""
    lengths = (segments.end - segments.start)[1:]
    return int(np.clip(np.quantile(lengths, 0.9), 20, 200)) if len(lengths) else 20
