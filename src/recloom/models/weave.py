"""The default model: item ids and item texts woven into one vector, read in order by a small network.

Shapes: B histories, L steps, N targets, C negatives, I catalogue (with the padding row), D width of item vectors and
queries, H width of the network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX, Dataset, Histories, SplitConfig, split_dataset, unknown_value
from recloom.errors import ConfigError
from recloom.models.circumstances import Circumstances, Moments, events_of, requests_of
from recloom.models.coded_items import CodedItems
from recloom.models.cooccurrence import cooccurrence_vectors
from recloom.models.dropout import Dropout
from recloom.models.interface import (
    ItemText,
    Model,
    Scorer,
    Span,
    TrainedModel,
    TrainingData,
    VectorModel,
    rounded_products,
    usual_length,
)
from recloom.models.item_vectors import Fusion, ItemVectors
from recloom.models.losses import LOSSES, blockwise_softmax
from recloom.models.negatives import Negatives, Sampling
from recloom.models.networks import HSTU, BERT4Rec, Recurrent, SASRec, SequenceNetwork
from recloom.models.popularity_prior import PopularityPrior
from recloom.models.pretrained import SHAPES, Pretrained
from recloom.models.ranking import ndcg_at_10
from recloom.models.teacher import Teacher
from recloom.models.time_buckets import GAP_BUCKETS, gap_buckets
from recloom.workers import Workers

Network = Literal["gru", "lstm", "rnn", "sasrec", "bert4rec", "hstu"]
NETWORKS = ("gru", "lstm", "rnn", "sasrec", "bert4rec", "hstu")
SHORT_HISTORY = 50
"""Most interactions that a recurrent network reads."""
MANY_INTERACTIONS = 500_000
"""Interactions of a log that attention over long histories needs to learn from."""
OFTEN_TAKEN = 100
"""Interactions of an average item from which on ids learn well, and less has to be hidden in training."""
SMALL_CATALOGUE = 4_000
"""Items that are all used as negatives."""
LARGE_CATALOGUE = 50_000
"""Items beyond which vectors are narrower, and nothing stands beside what is trained."""
HISTORIES_AT_ONCE = 512
ITEMS_AT_ONCE = 16_384
"""Coded item vectors that are decoded together."""
MOST_CANDIDATES = 20_000
"""Items that decide how much popularity counts; a larger catalogue is sampled."""
LIKENESS_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 48.0, 96.0, 192.0)
"""How much the cosine of texts may add to a score, in which other cosines are divided by the temperature: from nothing
to where hardly anything else counts."""
LIKENESS_HALF_LIFE = 1.5
"""After so many later interactions an earlier one counts half in what texts are compared with."""
LEAST_CASES = 100
"""Cases below which the weight of likeness stays as it is."""
CONTEXT_DROPOUT = 0.5
"""Share of training targets that are asked for without a context column."""
TABLES_OF_ITEMS = (".ids.weight", ".seen_I", ".code_IM", ".length_I", ".features_IP")
"""How tensors of the state are called that have a row for each item."""
MASKED_SHARE = 0.3
"""Share of events that a network which looks both ways has to guess."""


@dataclass(frozen=True, kw_only=True)
class WeaveConfig:
    """Hyperparameters of `weave`: the [model] table of a run file."""

    network: Network = "gru"
    """What reads the sequence."""
    fusion: Fusion | Literal["separate", "likeness"] = "sum"
    """How id and text become one item vector; `separate` trains an id model and a text model side by side and adds
    their scores, `likeness` is `sum` and adds how like the text is to recent ones, as much as validation says:
    nothing where that has fewer than 100 cases, or is not to be asked (privacy.epsilon)."""
    embedding_dim: int = 256
    """Width D of item vectors and queries."""
    hidden_dim: int = 256
    """Width of the network that reads the sequence."""
    num_layers: int | None = None
    """Layers of the network. Unset: one if it is recurrent, two if it is attention."""
    num_heads: int = 2
    """Attention heads; has to divide hidden_dim."""
    text_dim: int = 256
    """Directions of the text embedding that are used, the strongest first; as many of a picture's."""
    max_length: int = 50
    """Interactions of a history that are read, the newest ones."""
    half_life: float = 0.0
    """After so many later events an earlier one counts half in what the network's reading is added to. 0: the last
    event alone counts."""
    dropout: float = 0.4
    """Share of values set to zero in training."""
    id_dropout: float = 0.1
    """Share of items that are known by their text alone in a training step, so that new items are scored well."""
    modality_dropout: float = 0.1
    """Share of texts, and of pictures and other vectors, that are hidden in a training step, so that items which lack
    one are scored well. Has no effect where there is nothing but text."""
    warm_start: bool = True
    """Whether item vectors start from what is taken together, and text from what best predicts it."""
    request: bool = True
    """Whether the time and context in which the next item is asked for are part of the query."""
    request_dropout: float = 0.1
    """Share of training targets that are asked for without their time, so that a request may lack it."""
    popularity: bool = True
    """Whether recent popularity is added to the score, weighed by what validation says."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """What query and item vector are compared by."""
    temperature: float = 0.07
    """What cosines are divided by: lower concentrates on the hardest negatives. Has no effect on a dot product."""
    loss: Literal["softmax", "gbce", "bpr"] = "softmax"
    """What training minimises."""
    sampling: Sampling = "uniform"
    """Where negatives come from."""
    num_negatives: int = 1_024
    """Items that all targets of a batch are told apart from. 0, or more than the catalogue has: every item."""
    behavior_loss: float = 0.0
    """Weight of predicting the next behaviour beside the next item."""
    time_loss: float = 0.0
    """Weight of predicting how long the next interaction takes to come."""

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ConfigError(f"model.network is {self.network!r}; choose {', '.join(NETWORKS)}")
        for name, known in (
            ("fusion", ("id", "text", "sum", "gated", "concat", "init", "separate", "likeness")),
            ("similarity", ("cosine", "dot")),
            ("loss", tuple(LOSSES)),
            ("sampling", ("uniform", "popularity", "in-batch")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}; choose {', '.join(known)}")
        for name in ("embedding_dim", "hidden_dim", "num_layers", "num_heads", "text_dim", "max_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to be at least 1")
        for name in ("dropout", "id_dropout", "modality_dropout", "request_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to lie in [0, 1)")
        for name in ("behavior_loss", "time_loss", "half_life"):
            if getattr(self, name) < 0:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it cannot be negative")
        if self.temperature <= 0:
            raise ConfigError(f"model.temperature is {self.temperature}; it has to be positive")
        if self.network in ("sasrec", "bert4rec", "hstu") and self.hidden_dim % self.num_heads:
            raise ConfigError(
                f"model.hidden_dim ({self.hidden_dim}) has to be a multiple of model.num_heads ({self.num_heads})"
            )


class Weave(TrainedModel, VectorModel):
    """A sequence network over item vectors; cosine scores over a temperature; softmax against shared negatives.

    An item's vector is woven from its id, its text and its picture (`ItemVectors`). An event adds what it was (view,
    purchase, ...), when, how long after the one before, and its context; the request for the next item adds the same
    to the state it meets, by scaling and shifting it (Latent Cross: Beutel et al. 2018,
    https://doi.org/10.1145/3159652.3159727). Recent popularity is added to the score as validation says.
    """

    name = "weave"
    Config = WeaveConfig
    uses_modalities = True
    can_resume = True
    private_options = {"warm_start": False, "popularity": False, "sampling": "uniform"}
    # Small: noise goes by the number of parameters, and a step takes one person at a time (benchmarks/privacy.md).
    private_defaults = {
        "network": "gru",
        "fusion": "sum",
        "embedding_dim": 64,
        "hidden_dim": 64,
        "text_dim": 64,
        "max_length": 20,
        "dropout": 0.0,
        "num_negatives": 256,
    }
    search_space = {
        "model.network": ["gru", "sasrec", "hstu"],
        "model.embedding_dim": [128, 256, 512],
        "model.dropout": Span(0.1, 0.6),
        "model.temperature": Span(0.04, 0.12, log=True),
        "model.id_dropout": Span(0.0, 0.4),
        "training.learning_rate": Span(5e-4, 5e-3, log=True),
        "training.weight_decay": Span(1e-3, 0.3, log=True),
    }

    def __init__(self, config: WeaveConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        both: tuple[Fusion, ...] = ("id",) if text is None else ("id", "text")
        if config.fusion == "likeness":
            self.towers = nn.ModuleList([Tower(config, dataset, "sum", text)])
            if text is not None:
                self.towers.append(Likeness(config, dataset, text))
        else:
            fusions: tuple[Fusion, ...] = both if config.fusion == "separate" else (config.fusion,)
            self.towers = nn.ModuleList(Tower(config, dataset, fusion, text) for fusion in fusions)
        self.prior = PopularityPrior(len(dataset.items))
        self._teacher: Teacher | None = None
        self._pretrained: Pretrained | None = None
        self._catalogue_I: Tensor | None = None

    @property
    def _towers(self) -> list["Tower"]:
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    @property
    def _trained_towers(self) -> list["Tower"]:
        return [tower for tower in self._towers if not isinstance(tower, Likeness)]

    @property
    def _likeness(self) -> "Likeness | None":
        return next((tower for tower in self._towers if isinstance(tower, Likeness)), None)

    @classmethod
    def defaults_for(cls, dataset: Dataset, split: SplitConfig) -> dict[str, Any]:
        train = split_dataset(dataset, split).train
        num_items, max_length, num_interactions = len(dataset.items), usual_length(train), train.num_interactions
        # Where there is enough to learn from, long histories are read by attention, whose steps do not wait for each
        # other. benchmarks/accuracy.md has what was measured of this, and says what was not.
        reads_long = max_length > SHORT_HISTORY and num_interactions > MANY_INTERACTIONS
        width = 64 if num_items > 200_000 else 128 if num_items > LARGE_CATALOGUE or reads_long else 256
        return {
            "network": "sasrec" if reads_long else "gru",
            "fusion": "likeness" if num_items <= LARGE_CATALOGUE else "sum",
            # Item vectors that start from co-occurrence gain from being wide where there are many items to tell apart.
            "embedding_dim": 2 * width if width == 256 and num_items > SMALL_CATALOGUE else width,
            "hidden_dim": width,
            "max_length": max_length if reads_long else min(max_length, SHORT_HISTORY),
            "dropout": 0.2 if num_interactions > OFTEN_TAKEN * num_items else 0.4,
            "num_negatives": 0 if num_items <= SMALL_CATALOGUE else 1_024,
            "request": bool(split.told),
        }

    @property
    def reads_requests(self) -> bool:
        return self.config.request or self.config.popularity

    def prepare(self, data: TrainingData) -> None:
        counts_I = torch.from_numpy(data.item_counts())
        for tower in self._towers:
            assert isinstance(tower.items, ItemVectors)
            tower.items.prepare(counts_I > 0)
            tower.circumstances.prepare(data)
            if tower.request is not None:
                tower.request.prepare(data)
        if self._pretrained is not None:
            for tower in self._trained_towers:
                tower.begin_with(self._pretrained)
            self._pretrained = None
        elif self.config.warm_start:
            vectors_ID = cooccurrence_vectors(data, self.config.embedding_dim)
            for tower in self._trained_towers:
                assert isinstance(tower.items, ItemVectors)
                tower.items.start_from(vectors_ID)
        self.prior.prepare(data)
        self._negatives = Negatives(counts_I, self.config.sampling, self.config.num_negatives)
        self._negatives.catalogue_I = self._catalogue_I

    def prepare_privately(self) -> None:
        # Every item of the catalogue counts as seen, once: which of them somebody took is not to be told.
        is_item_I = torch.arange(self.num_items + 1) != PADDING_INDEX
        for tower in self._towers:
            assert isinstance(tower.items, ItemVectors)
            tower.items.prepare(is_item_I)
        self._negatives = Negatives(is_item_I.long(), "uniform", self.config.num_negatives)

    @property
    def item_table_bytes(self) -> int:
        return sum(tower.items.table_bytes for tower in self._towers if isinstance(tower.items, ItemVectors))

    def deal_items(self, workers: Workers) -> None:
        for tower in self._towers:
            assert isinstance(tower.items, ItemVectors)
            tower.items.deal(workers)

    @property
    def own_items(self) -> Tensor | None:
        items = self._towers[0].items
        return items.own_rows() if isinstance(items, ItemVectors) and items.is_dealt else None

    def collect_items(self) -> None:
        for tower in self._towers:
            assert isinstance(tower.items, ItemVectors)
            tower.items.collect()

    def resume(self, data: TrainingData) -> None:
        counts_I = torch.from_numpy(data.item_counts())
        for tower in self._towers:
            tower.items.resume(counts_I > 0)
        self.prior.prepare(data)
        self._negatives = Negatives(counts_I, self.config.sampling, self.config.num_negatives)

    def row_sources(self, other: Model, source_I: Tensor) -> dict[str, Tensor]:
        assert isinstance(other, Weave)
        # By name too: a network may happen to be as wide as the catalogue is long.
        every = super().row_sources(other, source_I)
        sources = {name: rows for name, rows in every.items() if name.endswith(TABLES_OF_ITEMS)}
        for number, (tower, before) in enumerate(zip(self._towers, other._towers, strict=True)):
            place = f"towers.{number}"
            sources[f"{place}.circumstances.table.weight"] = tower.circumstances.row_sources(before.circumstances)
            if tower.request is not None and before.request is not None:
                sources[f"{place}.request.table.weight"] = tower.request.row_sources(before.request)
            if tower.to_behavior is not None:
                known = before.behaviors
                source_R = torch.tensor([0, *(known.index_of(name) or -1 for name in tower.behaviors.ids)])
                sources |= {f"{place}.to_behavior.{name}": source_R for name in ("weight", "bias")}
        return sources

    @property
    def is_coded(self) -> bool:
        """Whether item vectors are codes (`CodedItems`), which are decoded when they are asked for."""
        return any(isinstance(tower.items, CodedItems) for tower in self._towers)

    def take_over(self, other: Model, source_I: Tensor) -> None:
        before = [tower.items for tower in self._towers]
        self._take_form(other.state_dict())
        super().take_over(other, source_I)
        new_N = (source_I < 0).nonzero().squeeze(1)
        for items, tower in zip(before, self._towers, strict=True):
            if isinstance(tower.items, CodedItems) and isinstance(items, ItemVectors) and tower.items.reads_text:
                tower.items.read(new_N, items.embeddings(new_N))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        self._take_form(state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def _take_form(self, state: Mapping[str, Tensor]) -> None:
        """Hold item vectors in codes where a state does."""
        for number, tower in enumerate(self._towers):
            centroid_MKW = state.get(f"towers.{number}.items.centroid_MKW")
            if centroid_MKW is not None and isinstance(tower.items, ItemVectors):
                tower.items = CodedItems(self.num_items, centroid_MKW, tower.items)

    def tune(self, histories: Histories, target_B: Tensor, include_seen: bool, there_I: Tensor) -> None:
        likeness = self._likeness
        if not self.config.popularity and likeness is None:
            return
        self.eval()
        there_N = torch.unique(torch.cat([there_I.nonzero().squeeze(1), target_B]))
        shuffled = there_N[torch.randperm(len(there_N), generator=torch.Generator().manual_seed(0))[:MOST_CANDIDATES]]
        candidate_C = torch.unique(torch.cat([shuffled, target_B]))
        score_BC = self._similarity(histories, candidate_C, self._trained_towers)
        if len(there_N) > MOST_CANDIDATES:
            # A target that was not drawn counts in its own case alone: else what is taken often is drawn more often.
            undrawn_C = ~torch.isin(candidate_C, shuffled)
            score_BC[undrawn_C & (candidate_C != target_B[:, None])] = -torch.inf
        if not include_seen:
            rows, seen = map(torch.from_numpy, histories.seen())
            column = torch.searchsorted(candidate_C, seen.long()).clamp_max(len(candidate_C) - 1)
            is_candidate = candidate_C[column] == seen
            score_BC[rows[is_candidate], column[is_candidate]] = -torch.inf
        position_B = torch.searchsorted(candidate_C, target_B)
        possible_B = score_BC[torch.arange(len(target_B)), position_B] > -torch.inf
        if not possible_B.any():
            return
        asked = histories.rows(possible_B.nonzero().squeeze(1).numpy())
        if not possible_B.all():
            score_BC = score_BC[possible_B]
        if likeness is not None:
            likeness.tune(score_BC, position_B[possible_B], asked, candidate_C)
        if self.config.popularity:
            self.prior.fit(score_BC, candidate_C, position_B[possible_B], asked, self.prior.count_new(there_N))

    @torch.no_grad()
    def _similarity(self, histories: Histories, candidate_C: Tensor, towers: Sequence["Tower"]) -> Tensor:
        """Return query times item of some towers, without popularity; shape (B, C)."""
        items_DC = torch.cat([tower.item_vectors(candidate_C) for tower in towers], dim=1).T
        score_BC = items_DC.new_empty(len(histories), len(candidate_C))
        for begin in range(0, len(histories), HISTORIES_AT_ONCE):
            some = np.arange(begin, min(begin + HISTORIES_AT_ONCE, len(histories)))
            queries = [tower.queries(histories.rows(some)) for tower in towers]
            score_BC[begin : begin + len(some)] = torch.cat(queries, dim=1) @ items_DC
        return score_BC

    def tune_like(self, other: TrainedModel) -> None:
        assert isinstance(other, Weave)
        self.prior.fit_like(other.prior)
        if self._likeness is not None and other._likeness is not None:
            self._likeness.weight = other._likeness.weight.clone()

    def read_items(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        for tower in self._towers:
            tower.items.read(rows_N, embedding_NE)

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        rows_N = torch.arange(self.num_items + 1, device=self.prior.features_IP.device) if rows_N is None else rows_N
        return torch.cat([*(tower.item_vectors(rows_N) for tower in self._towers), self.prior.features_IP[rows_N]], 1)

    def similarity_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        rows_N = torch.arange(self.num_items + 1, device=self.prior.features_IP.device) if rows_N is None else rows_N
        vectors = [tower.item_vectors(rows_N) for tower in self._trained_towers]
        if self._likeness is not None:
            # Texts count beside what is trained as they do in a score.
            share = (self._likeness.weight * self.config.temperature).sqrt()
            vectors.append(share * self._likeness.item_vectors(rows_N))
        return torch.cat(vectors, dim=1)

    def score_parts(self, query_D: Tensor, rows_N: Tensor) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        towers = self._towers
        queries = query_D[: len(towers) * self.config.embedding_dim].chunk(len(towers))
        for tower, own_D in zip(towers, queries, strict=True):
            for name, vectors_ND in tower.item_parts(rows_N).items():
                parts[name] = parts.get(name, 0.0) + vectors_ND @ own_D
        weight_P = query_D[len(towers) * self.config.embedding_dim :]
        if weight_P.any():
            usual = self.prior.usual(weight_P)
            parts["popularity"] = self.prior.features_IP[rows_N] @ weight_P - usual
            parts["any item"] = usual.expand(len(rows_N))
        return parts

    def scorer(self) -> Scorer:
        if self.own_items is not None:
            items_DN = self.item_vectors(self.own_items).T.contiguous()
            return lambda histories: rounded_products(self.queries(histories), items_DN)
        if not self.is_coded:
            return super().scorer()
        return lambda histories: self._products(self.queries(histories), self.item_vectors)

    def similarity(self, item_index: int) -> Tensor:
        if not self.is_coded:
            return super().similarity(item_index)

        def unit_vectors(rows_N: Tensor) -> Tensor:
            return functional.normalize(self.similarity_vectors(rows_N), dim=1)

        return self._products(unit_vectors(torch.tensor([item_index])), unit_vectors)[0]

    def _products(self, query_BD: Tensor, vectors_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return query times item in single precision, for all items, which are never decoded all at once; (B, I)."""
        parts = torch.split(torch.arange(self.num_items + 1), ITEMS_AT_ONCE)
        return torch.cat([(query_BD @ vectors_of(rows_N).T).float() for rows_N in parts], dim=1)

    def queries(self, histories: Histories) -> Tensor:
        return self.branch_queries(histories, 0)

    def branch_queries(self, histories: Histories, num_shared: int) -> Tensor:
        query_BD = torch.cat([tower.queries(histories, num_shared) for tower in self._towers], dim=1)
        # Popularity is a few more coordinates: still one inner product.
        return self.prior.extend(query_BD, histories)

    def step_queries(self, histories: Histories) -> Tensor:
        query_BLD = torch.cat([tower.step_queries(histories) for tower in self._towers], dim=2)
        return functional.pad(query_BLD, (0, self.prior.features_IP.shape[1]))

    def learn_from(self, teacher: Teacher) -> None:
        if self.config.network == "bert4rec":
            raise ConfigError("bert4rec guesses masked steps, of which a teacher knows nothing; choose another network")
        if teacher.max_length < self.max_length:
            raise ConfigError(
                f"the teacher reads {teacher.max_length} interactions, this model {self.max_length};"
                f" set model.max_length to {teacher.max_length} or less"
            )
        self._teacher = teacher

    def begin_with(self, pretrained: Pretrained) -> None:
        if self.config.fusion not in ("sum", "text", "likeness"):
            raise ConfigError(
                f"model.fusion is {self.config.fusion!r}, which has no place for what was pretrained; choose sum or"
                " text"
            )
        for name in SHAPES:
            found, wanted = getattr(self.config, name), pretrained.options.get(name)
            if found != wanted:
                raise ConfigError(
                    f"model.{name} is {found}, and that of the pretrained model {wanted}; leave it out, or pretrain"
                    " with it"
                )
        self._pretrained = pretrained

    def pretrained(self, encoder: Mapping[str, Any], fingerprint: str) -> Pretrained:
        """Return the parts of a text-only model that carry over to other catalogues.

        Args:
            encoder: Options of what read its texts.
            fingerprint: Of the same.
        """
        options = {name: getattr(self.config, name) for name in SHAPES if getattr(self.config, name) is not None}
        meanings, tensors = self._towers[0].general()
        return Pretrained(options, encoder, fingerprint, meanings, tensors)

    def learn_for_others(self, catalogue_I: Tensor) -> None:
        """Let training tell each item apart from those of its own catalogue alone, and keep to what carries over.

        Args:
            catalogue_I: Which of several catalogues each item is of, shape (I,).
        """
        self._catalogue_I = catalogue_I
        for tower in self._towers:
            assert isinstance(tower.items, ItemVectors)
            tower.items.catalogue_I = catalogue_I
            # Turned and not distorted, at the scale of a linear map that begins at random: texts are alike as they are.
            nn.init.orthogonal_(tower.items.from_text.weight, gain=3**-0.5)
            nn.init.zeros_(tower.from_network.bias)
            nn.init.zeros_(tower.to_query.bias)
            tower.to_query.requires_grad_(False)

    @torch.no_grad()
    def scale_network(self, share: float) -> None:
        """Let a share of what the network makes of a history be added to what was recent; 0 leaves that alone."""
        for tower in self._towers:
            tower.from_network.weight.mul_(share)
            tower.from_network.bias.mul_(share)

    def loss(self, histories: Histories) -> Tensor:
        if self.is_coded:
            raise ConfigError(
                "the item vectors of this model are stored in codes, which cannot be trained; update the model it was"
                " compressed from, and compress that again"
            )
        losses = [tower.loss(histories, self._negatives, self._teacher) for tower in self._trained_towers]
        return torch.stack(losses).sum()


class Tower(nn.Module):
    """A complete model of one fusion: events to queries, items to vectors."""

    def __init__(self, config: WeaveConfig, dataset: Dataset, fusion: Fusion, text: ItemText | None) -> None:
        super().__init__()
        self.config = config
        width = config.embedding_dim
        text_IE = None if text is None else torch.from_numpy(text.vectors_IE)
        others = [torch.from_numpy(other.vectors_IE) for other in text.others] if text else []
        self._said_by = ["text", *(other.name for other in text.others)] if text else []
        self.items: ItemVectors | CodedItems
        self.items = ItemVectors(
            len(dataset.items),
            width,
            fusion,
            text_IE,
            config.text_dim,
            config.id_dropout,
            others,
            config.modality_dropout,
        )
        self.circumstances = Circumstances(dataset, width, of_requests=False)
        self.request = Circumstances(dataset, 2 * width, of_requests=True) if config.request else None
        self.network = _network(config)
        self.to_network = nn.Linear(width, config.hidden_dim)
        self.from_network = nn.Linear(config.hidden_dim, width)
        self.mask = None if self.network.is_causal else nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = Dropout(config.dropout)
        self.to_query = nn.Linear(width, width)
        # What comes next is like what was last, until training knows better.
        nn.init.eye_(self.to_query.weight)
        nn.init.zeros_(self.from_network.weight)
        self.behaviors = dataset.behavior.vocabulary
        self.to_behavior = nn.Linear(width, len(dataset.behavior.vocabulary) + 1) if config.behavior_loss else None
        self.to_gap = nn.Linear(width, GAP_BUCKETS) if config.time_loss else None

    def general(self) -> tuple[tuple[tuple[str, str], ...], dict[str, Tensor]]:
        """Return what the rows of circumstances mean, and all that is about no particular item or person."""
        assert isinstance(self.items, ItemVectors)
        meanings, rows_RD = self.circumstances.general()
        parts = self._carried_parts()
        tensors = {f"{name}.{key}": t for name, part in parts.items() for key, t in part.state_dict().items()}
        return meanings, tensors | {"projection": self.items.whitening.projection_EF, "circumstances": rows_RD}

    def begin_with(self, pretrained: Pretrained) -> None:
        """Begin with what was learned elsewhere, and with nothing about single items."""
        assert isinstance(self.items, ItemVectors)
        self.items.begin_with(pretrained.tensors["projection"])
        self.circumstances.begin_with(pretrained.circumstances, pretrained.tensors["circumstances"])
        nn.init.zeros_(self.to_query.bias)
        for name, part in self._carried_parts().items():
            part.load_state_dict({key: pretrained.tensors[f"{name}.{key}"] for key in part.state_dict()})

    def _carried_parts(self) -> dict[str, nn.Module]:
        # Not the map to queries, which stays where it begins, at what was recent: what it learns is the taste of one
        # public, and misleads about another's (benchmarks/transfer.md).
        assert isinstance(self.items, ItemVectors)
        return {
            "from_text": self.items.from_text,
            "network": self.network,
            "to_network": self.to_network,
            "from_network": self.from_network,
        }

    def item_vectors(self, rows_N: Tensor) -> Tensor:
        """Return the vectors of some items, shape (N, D)."""
        return self._scaled(self.items(rows_N))

    def item_parts(self, rows_N: Tensor) -> dict[str, Tensor]:
        """Return what id, text and each other modality add to the vectors of some items, shape (N, D) each.

        Under a cosine they are divided by the length of the vector that they make together, so that they add up to it;
        how long the one is therefore tells on the other.
        """
        if isinstance(self.items, CodedItems):
            return {"id and text": self.item_vectors(rows_N)}
        id_ND, said = self.items.parts(rows_N)
        parts = {} if id_ND is None else {"id": id_ND}
        if said:
            parts |= zip(self._said_by, said, strict=True)
        if self.config.similarity == "cosine":
            length_N1 = self.items(rows_N).norm(dim=1, keepdim=True).clamp_min(1e-6)
            parts = {name: part_ND / length_N1 for name, part_ND in parts.items()}
        return parts

    def queries(self, histories: Histories, num_shared: int = 0) -> Tensor:
        """Return what to hold against the item vectors for each history, shape (B, D).

        Args:
            histories: None of them empty.
            num_shared: Steps at the beginning that are the same in all of them, fewer than the shortest has.
        """
        event_BLD, is_event_BL, timestamp_BL = self._events(histories, events_of(histories))
        last_B = torch.from_numpy(histories.length_B).to(event_BLD.device) - 1
        rows_B = torch.arange(len(last_B), device=last_B.device)
        if self.mask is not None:
            # One more step, to be guessed.
            event_BLD, is_event_BL = _with_step(event_BLD), _with_step(is_event_BL)
            timestamp_BL, last_B = _with_step(timestamp_BL), last_B + 1
            event_BLD[rows_B, last_B] = self.mask
            is_event_BL[rows_B, last_B] = True
        if num_shared and self.network.is_causal:
            trunk_1PH = self.to_network(event_BLD[:1, :num_shared])
            branch_BSH = self.to_network(event_BLD[:, num_shared:])
            read_BH = self.network.branches(trunk_1PH, branch_BSH, timestamp_BL)[rows_B, last_B - num_shared]
        else:
            read_BH = self.network.last_state(self.to_network(event_BLD), is_event_BL, timestamp_BL)
        state_BD = self._state(self.recent(event_BLD)[rows_B, last_B], read_BH)
        return self._query(state_BD, requests_of(histories))

    def step_queries(self, histories: Histories) -> Tensor:
        """Return the query after each step, nothing being known of the request; shape (B, L, D)."""
        if self.mask is not None:
            raise ConfigError("bert4rec looks at later steps too, so it has no query for each step and cannot teach")
        return self._to_query(self._states(*self._events(histories, events_of(histories))))

    def loss(self, histories: Histories, negatives: Negatives, teacher: Teacher | None) -> Tensor:
        """Return the mean loss over all targets of the batch."""
        events = events_of(histories)
        device = self.to_query.weight.device
        item_index_BL = torch.from_numpy(histories.item_index_BL).long().to(device)
        is_event_BL = item_index_BL != PADDING_INDEX
        if self.mask is None:
            asked_BL = is_event_BL.clone()
            asked_BL[:, 0] = False
        else:
            asked_BL = is_event_BL & (torch.rand(is_event_BL.shape, device=device) < MASKED_SHARE)
            asked_BL[torch.arange(len(asked_BL)), is_event_BL.sum(dim=1) - 1] = True
        candidate_C, log_expected_C = negatives.draw(item_index_BL[asked_BL])
        # Histories, targets and negatives share items: each is looked up once.
        both, length = torch.cat([item_index_BL.flatten(), candidate_C]), item_index_BL.numel()
        rows, position = torch.unique(both, return_inverse=True)
        vectors_RD = self.items(rows)
        position_BL, position_C = position[:length].view_as(item_index_BL), position[length:]

        event_BLD = self.dropout(functional.embedding(position_BL, vectors_RD) + self.circumstances(events))
        timestamp_BL = torch.from_numpy(histories.timestamp_BL).to(device)
        if self.mask is None:
            state_BLD = self._states(event_BLD[:, :-1], is_event_BL[:, :-1], timestamp_BL[:, :-1])
            state_ND = state_BLD[asked_BL[:, 1:]]
        else:
            masked_BLD = torch.where(asked_BL[..., None], self.mask, event_BLD)
            state_ND = self._states(masked_BLD, is_event_BL, timestamp_BL)[asked_BL]
        query_ND = self._query(state_ND, self._requests_for(events, asked_BL))

        vectors_RD, position_N = self._scaled(vectors_RD), position_BL[asked_BL]
        item_N = item_index_BL[asked_BL]
        target_ND = functional.embedding(position_N, vectors_RD)
        negative_CD = functional.embedding(position_C, vectors_RD)

        def is_none(some: slice) -> Tensor:
            """Tell which candidates are no negatives."""
            return (position_N[some, None] == position_C) | negatives.elsewhere(item_N[some], candidate_C)

        if self.config.loss == "softmax" and teacher is None:
            loss = blockwise_softmax(query_ND, target_ND, negative_CD, is_none, log_expected_C)
            return loss + self._further_losses(state_ND, events, asked_BL)
        target_score_N = (query_ND * target_ND).sum(dim=1)
        score_NC = (query_ND @ negative_CD.T).masked_fill(is_none(slice(None)), -torch.inf)
        loss = LOSSES[self.config.loss](target_score_N, score_NC, log_expected_C)
        if teacher is not None:
            opinion_ND = teacher.queries(histories)[:, :-1][asked_BL[:, 1:].cpu()]
            both_NC = torch.cat([target_score_N[:, None], score_NC], dim=1)
            disagreement = teacher.disagreement(opinion_ND, item_N, candidate_C, both_NC)
            loss = (1 - teacher.share) * loss + teacher.share * disagreement
        return loss + self._further_losses(state_ND, events, asked_BL)

    def _further_losses(self, state_ND: Tensor, events: Moments, asked_BL: Tensor) -> Tensor:
        loss = state_ND.new_zeros(())
        if self.to_behavior is not None:
            behavior_BL = torch.from_numpy(events.behavior).long().to(state_ND.device)
            guess = functional.cross_entropy(self.to_behavior(state_ND), behavior_BL[asked_BL])
            loss = loss + self.config.behavior_loss * guess
        if self.to_gap is not None:
            gap_BL = torch.from_numpy(events.gap).to(state_ND.device)
            # How long the first event of a window took to come is not known.
            bucket_N = torch.where(gap_BL >= 0, gap_buckets(gap_BL), -1)[asked_BL]
            guess = functional.cross_entropy(self.to_gap(state_ND), bucket_N, ignore_index=-1)
            loss = loss + self.config.time_loss * guess
        return loss

    def _events(self, histories: Histories, events: Moments) -> tuple[Tensor, Tensor, Tensor]:
        """Return the vector of each event, whether it is one, and when it was; (B, L, D), (B, L) and (B, L)."""
        device = self.to_query.weight.device
        item_index_BL = torch.from_numpy(histories.item_index_BL).long().to(device)
        rows, position_BL = torch.unique(item_index_BL, return_inverse=True)
        event_BLD = self.items(rows)[position_BL] + self.circumstances(events)
        timestamp_BL = torch.from_numpy(histories.timestamp_BL).to(device)
        return self.dropout(event_BLD), item_index_BL != PADDING_INDEX, timestamp_BL

    def _states(self, event_BLD: Tensor, is_event_BL: Tensor, timestamp_BL: Tensor) -> Tensor:
        """Return the state after each step, shape (B, L, D)."""
        return self._state(self.recent(event_BLD), self.network(self.to_network(event_BLD), is_event_BL, timestamp_BL))

    def recent(self, event_BLD: Tensor) -> Tensor:
        """Return for each step the mean of the events up to it, later ones weighing more; shape (B, L, D)."""
        if not self.config.half_life:
            return event_BLD
        step_L = torch.arange(event_BLD.shape[1], device=event_BLD.device)
        steps_back_LL = step_L[:, None] - step_L
        weight_LL = torch.where(steps_back_LL < 0, 0.0, 0.5 ** (steps_back_LL / self.config.half_life))
        return (weight_LL / weight_LL.sum(dim=1, keepdim=True)).to(event_BLD) @ event_BLD

    def _state(self, recent_ND: Tensor, read_NH: Tensor) -> Tensor:
        """Add what the network makes of the events up to some steps to the recent ones, shape (..., D)."""
        return recent_ND + self.from_network(self.dropout(read_NH))

    def _requests_for(self, events: Moments, asked_BL: Tensor) -> Moments:
        """Return the circumstances of the targets, a share of them unknown, in arrays of shape (N,)."""
        asked = asked_BL.cpu().numpy()

        def known(dropout: float) -> np.ndarray:
            return torch.rand(int(asked.sum())).numpy() >= dropout

        time_known_N = known(self.config.request_dropout)
        return Moments(
            timestamp=events.timestamp[asked] * time_known_N,
            gap=np.where(time_known_N, events.gap[asked], -1),
            # Each column by itself: a request says some of it, and what, differs from request to request.
            context={
                name: np.where(known(CONTEXT_DROPOUT), values[asked], unknown_value(values.dtype))
                for name, values in events.context.items()
            },
            user_index=events.user_index[asked],
        )

    def _query(self, state_ND: Tensor, request: Moments) -> Tensor:
        if self.request is not None:
            scale_ND, shift_ND = self.request(request).chunk(2, dim=-1)
            state_ND = state_ND * (1 + scale_ND) + shift_ND
        return self._to_query(state_ND)

    def _to_query(self, state_ND: Tensor) -> Tensor:
        query_ND = self.to_query(self.dropout(state_ND))
        if self.config.similarity == "cosine":
            query_ND = functional.normalize(query_ND, dim=-1, eps=1e-6) / self.config.temperature
        return query_ND

    def _scaled(self, vectors_ND: Tensor) -> Tensor:
        return functional.normalize(vectors_ND, dim=1, eps=1e-6) if self.config.similarity == "cosine" else vectors_ND


class Likeness(Tower):
    """How like an item's text is to those of the last few interactions: nothing of it is trained.

    What training makes of texts is what ids leave open in the log that it reads, where ids explain nearly everything.
    How much texts say about what comes next shows where nothing was learned from: its weight is read off validation.
    """

    weight: Tensor

    def __init__(self, config: WeaveConfig, dataset: Dataset, text: ItemText) -> None:
        untrained = replace(
            config,
            network="gru",
            hidden_dim=1,
            num_layers=1,
            half_life=LIKENESS_HALF_LIFE,
            similarity="cosine",
            request=False,
            behavior_loss=0.0,
            time_loss=0.0,
        )
        # Of a model that carries no text the vectors are stored, as those of ids are (compression/folding.py).
        super().__init__(untrained, dataset, "text" if text.vectors_IE.any() else "sum", text)
        self.register_buffer("weight", torch.zeros(()))
        self.requires_grad_(False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        assert isinstance(self.items, ItemVectors)
        # As many of the strongest directions as there is room for, as they are.
        nn.init.eye_(self.items.from_text.weight)

    @torch.no_grad()
    def tune(self, score_BC: Tensor, target_position_B: Tensor, histories: Histories, candidate_C: Tensor) -> None:
        """Choose the weight under which NDCG@10 is highest, and add what it makes to the scores.

        That is before popularity has been weighed, which then knows of it. With fewer than `LEAST_CASES` the weight
        stays what it was.

        Args:
            score_BC: Of all else; -inf for an item that may not be recommended.
            target_position_B: Which of the candidates was taken.
            histories: What was asked for.
            candidate_C: Which items.
        """
        before, self.weight = self.weight, torch.ones_like(self.weight)
        items_DC = self.item_vectors(candidate_C).T
        blocks = np.split(np.arange(len(histories)), range(HISTORIES_AT_ONCE, len(histories), HISTORIES_AT_ONCE))
        chosen = float(before)
        if len(histories) >= LEAST_CASES:
            found = np.zeros(len(LIKENESS_WEIGHTS))
            for some in blocks:
                cosine_BC = self.queries(histories.rows(some)) @ items_DC
                for number, weight in enumerate(LIKENESS_WEIGHTS):
                    ndcg_S = ndcg_at_10(score_BC[some] + weight * cosine_BC, target_position_B[some])
                    found[number] += float(ndcg_S.sum())
            chosen = LIKENESS_WEIGHTS[int(found.argmax())]
        for some in blocks:
            score_BC[some] += chosen * (self.queries(histories.rows(some)) @ items_DC)
        self.weight = torch.full_like(before, chosen)

    def queries(self, histories: Histories, num_shared: int = 0) -> Tensor:
        # Circumstances and the network, all zero, are passed by.
        device = self.weight.device
        item_index_BL = torch.from_numpy(histories.item_index_BL).long().to(device)
        rows, position_BL = torch.unique(item_index_BL, return_inverse=True)
        last_B = torch.from_numpy(histories.length_B).to(device) - 1
        recent_BLD = self.recent(self.items(rows)[position_BL])
        return self._to_query(recent_BLD[torch.arange(len(last_B), device=device), last_B])

    def step_queries(self, histories: Histories) -> Tensor:
        # A pupil compares texts by itself: taught to, it would count them twice.
        return self.weight.new_zeros(*histories.item_index_BL.shape, self.config.embedding_dim)

    def _to_query(self, state_ND: Tensor) -> Tensor:
        return functional.normalize(state_ND, dim=-1, eps=1e-6) * self.weight


def _network(config: WeaveConfig) -> SequenceNetwork:
    if config.network in Recurrent.cells:
        return Recurrent(config.network, config.hidden_dim, config.num_layers or 1, config.dropout)
    attention: dict[str, type[SASRec] | type[HSTU]] = {"sasrec": SASRec, "bert4rec": BERT4Rec, "hstu": HSTU}
    return attention[config.network](
        config.hidden_dim, config.num_heads, config.num_layers or 2, config.max_length, config.dropout
    )


def _with_step(values_BL: Tensor) -> Tensor:
    """Append an empty step to the second axis."""
    return torch.cat([values_BL, torch.zeros_like(values_BL[:, :1])], dim=1)
