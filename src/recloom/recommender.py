"""The one object a user holds: fit, recommend, similar_items, evaluate, update, save, load."""

import errno
import json
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import polars as pl
import tomli_w
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recloom.config import Tables, build, to_table
from recloom.dataset import (
    PADDING_INDEX,
    Cases,
    Dataset,
    Growth,
    Histories,
    Interaction,
    Requests,
    Split,
    context_value,
    gather,
    grow,
    histories_from_interactions,
    shard_of,
    split_dataset,
    stretches_of,
    without,
)
from recloom.encoders import describe_problems, item_texts, item_titles
from recloom.encoders.cache_folder import cache_folder
from recloom.errors import ArtifactError, ConfigError, UnknownIdError
from recloom.evaluation import Estimate, Evaluation, Judge, inverse_propensity_rate, metric_values, replay_rate
from recloom.events import Entities, Interactions, Pseudonyms, Source, read_interactions, read_items, read_users
from recloom.explanation import (
    Explainer,
    Explanation,
    Names,
    Reason,
    Reasoner,
    checked_language,
    with_reasons,
    word_reasons,
)
from recloom.files import CHECKSUMS, current_folder, damaged_file, recover, replacing, write_checksums
from recloom.fitting import (
    blank_model,
    carried_moments,
    fit_model,
    fit_privately,
    indices_in,
    learn_further,
    load_pretrained,
    new_model,
    opened_modality,
    read_catalogue,
    text_reader,
)
from recloom.models import (
    MODELS,
    CountedModel,
    ItemText,
    Modality,
    Model,
    Popular,
    Ranker,
    Rankings,
    Said,
    Sharded,
    Teacher,
    TrainedModel,
    TrainingData,
    VectorModel,
)
from recloom.models.ranking import fixed_copy
from recloom.run_config import EncoderConfig, RunConfig
from recloom.sharded_fitting import ShardedResult, ShardRecord, fit_shards, is_blank, learn_shards_further
from recloom.tensor_files import load_tensors
from recloom.training import (
    PrivacyRecord,
    Progress,
    RunRecord,
    TrainingResult,
    UpdateConfig,
    hardware,
    peak_memory_bytes,
    versions,
)
from recloom.version import __version__

FORMAT_VERSION = 6
USERS_AT_ONCE = 4_096
NEWEST_TOLD = 10
REQUIRED_FILES = ("config.toml", "metrics.json", "model.safetensors", "item_vectors.safetensors")
FEW_CASES = 30
Fitter = Callable[
    [Dataset, Split, RunConfig, ItemText | None, Teacher | None, Path | None, Progress | None],
    tuple[TrainingResult | None, Model, bool],
]
"""Trains a model; arguments and results are those of `fit_model`."""
MOMENTS_NAME = "optimizer.safetensors"


@dataclass(frozen=True)
class Recommendation:
    """One place of a ranked list."""

    rank: int
    item_id: str
    score: float
    title: str
    because: str = ""
    """Why, in a sentence; "" where nobody asked."""
    reasons: Sequence[Reason] = ()
    """Why, as data."""


@dataclass(frozen=True)
class RankedList:
    """What to recommend to one history, and how it came about."""

    items: list[Recommendation]
    unknown_items: int
    """Interactions of the history that were skipped because the catalogue does not hold their item."""
    served_by: str
    """The model's name, or "popular" where the model has no answer, as to an empty history."""
    past: Sequence[str] = ()
    """Newest items of the history, oldest first, for those who show or tell them."""


class Recommender:
    """A fitted model together with the catalogue and histories it recommends from."""

    def __init__(
        self,
        dataset: Dataset,
        model: Model,
        config: RunConfig,
        text: ItemText | None,
        counts_I: np.ndarray,
        run: RunRecord,
        moments: Callable[[], Mapping[str, torch.Tensor]] = dict,
    ) -> None:
        self.dataset = dataset
        self.model = model
        self.config = config
        self.run = run
        self.text = text
        """What the encoder made of the catalogue; None where no text is read."""
        self.counts_I = counts_I
        """Training interactions of each item; shape (I,)."""
        self.moments = moments
        """Reads what the optimiser remembered at the end of training, for `update` to go on from."""

    @classmethod
    def fit(
        cls,
        dataset: Dataset,
        model: str = "weave",
        *,
        settings: Tables | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
        fitter: Fitter = fit_model,
        known: Sequence[Modality] = (),
    ) -> "Recommender":
        """Read the item text, hold out what the protocol says, and train.

        Args:
            dataset: What people did and what the items say.
            model: A name of `recloom.models.MODELS`.
            settings: Options by table, as in a run file: `{"training": {"epochs": 20}}`.
            checkpoint: File to keep the state of training in, and to go on from after a kill.
            progress: Told what is going on, how much is done and how much there is to do.
            fitter: Trains in the place of this process, such as `recloom.cluster.training.RayFitter`.
            known: Pictures and other vectors of this catalogue that were read before, and whose files may be gone.

        Raises:
            ConfigError: An option is unknown or out of range, or the split leaves nothing to learn from.
            TrainingError: There is nothing to learn from, or the loss is not a number.
        """
        config = RunConfig.resolve(model, dataset, settings or {})
        if fitter is not fit_model:
            _check_shareable(config)
        began = time.monotonic()
        split = split_dataset(dataset, config.split)
        text, encoder, chosen, warnings = read_catalogue(dataset, config, progress, known=known)
        config = replace(config, encoder=chosen)
        encoded = time.monotonic()
        result: TrainingResult | None
        sharded: ShardedResult | None = None
        if config.privacy.epsilon is not None:
            result, fitted, release = fit_privately(dataset, split, config, text, progress)
            refit, counts_I, privacy = True, release.popularity_I, asdict(release.record)
            warnings += _private_warnings(release.record)
        elif config.privacy.shards > 1:
            _check_enough_people(dataset, config)
            sharded = fit_shards(dataset, split, config, text, checkpoint=checkpoint, progress=progress)
            result, fitted, refit, privacy = None, sharded.model, config.training.refit, {}
            warnings += _shard_warnings(sharded)
            counts_I = TrainingData(dataset, split.full if refit else split.train).item_counts()
        else:
            result, fitted, refit = fitter(
                dataset, split, config, text, load_teacher(dataset, config), checkpoint, progress
            )
            counts_I = TrainingData(dataset, split.full if refit else split.train).item_counts()
            privacy = {}
            warnings += _warnings(split)
        trained = time.monotonic()
        run = RunRecord(
            dataset=dataset.fingerprint,
            split=split.fingerprint(dataset),
            encoder=encoder.fingerprint if encoder else None,
            modalities={other.name: other.made_by for other in text.others} if text else {},
            stopped=result.stopped if result else None,
            best_epoch=(result.best_epoch or None) if result else None,
            validation_ndcg_at_10=result.best_validation if result else None,
            refit=refit,
            seconds={"encode": round(encoded - began, 2), "train": round(trained - encoded, 2)},
            peak_memory_bytes=peak_memory_bytes(),
            warnings=warnings,
            curve=[asdict(epoch) for epoch in result.curve] if result else [],
            versions=versions(),
            hardware=hardware(),
            privacy=privacy,
            shards=[asdict(record) for record in sharded.records] if sharded else [],
            lineage={"pretrained": pretrained.digest} if (pretrained := load_pretrained(config)) else {},
        )
        learned = sharded or result
        return cls(dataset, fitted, config, text, counts_I, run, lambda: learned.moments if learned else {})

    # Learning what happened since

    def update(
        self,
        interactions: Source | None = None,
        items: Source | None = None,
        users: Source | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        pseudonyms: Pseudonyms | None = None,
        retire: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> "Recommender":
        """Learn what happened since, from files; `learn` says how.

        Args:
            interactions: What people did since, in any form that `Dataset.from_files` reads; older than what is known
                is welcome.
            items: New items, and what changed of known ones.
            users: Likewise.
            columns: Names of columns that recloom does not recognise.
            pseudonyms: What user ids are known by, where the dataset was prepared with a key.
            retire: Whether items that `items` does not name leave, with all that happened with them.
            settings: Options of the [update] table.
            progress: Told what is going on.

        Raises:
            DataError: A file cannot be used, or a column holds words where it held numbers.
            ArtifactError: New text is to be read by an encoder that is not there any more.
            ConfigError: The model cannot go on learning, or `retire` comes without items.
        """
        self.check_pseudonyms(pseudonyms)
        log = None if interactions is None else read_interactions(interactions, columns=columns)
        people = None if users is None else read_users(users, columns=columns)
        if pseudonyms is not None:
            log, people = log and pseudonyms.in_log(log), people and pseudonyms.in_users(people)
        return self.learn(
            log,
            None if items is None else read_items(items, columns=columns),
            people,
            retire=retire,
            settings=settings,
            progress=progress,
        )

    def check_pseudonyms(self, pseudonyms: Pseudonyms | None) -> None:
        """Make sure that user ids are going to be spelled as the dataset spells them.

        Raises:
            ConfigError: The dataset was prepared with another key, or with none.
        """
        wanted, found = self.dataset.pseudonym_key_id, pseudonyms.key_id if pseudonyms else ""
        if wanted != found:
            what = f"pseudonyms made with the key {wanted}" if wanted else "no pseudonyms"
            given = f"the key {found} was given" if found else "no key was given"
            raise ConfigError(f"the user ids of the model are {what}, and {given}; bring the key it was prepared with")

    def learn(
        self,
        log: Interactions | None,
        items: Entities | None = None,
        users: Entities | None = None,
        *,
        retire: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> "Recommender":
        """Return a model that has learned what happened since; this one stays as it is.

        It goes on from the weights and the optimiser's memory, on what is new and some of the old. What this model
        would have foreseen is asked first, and kept in the new one's record. The new one has seen every interaction
        of both logs. Interactions that are there already change nothing, and where there is nothing else, this very
        model is returned. A model without gradient steps is counted anew. Arguments and errors as for `update`.
        """
        if self.run.privacy:
            raise ConfigError(
                "this model was fitted with privacy.epsilon, and an update would learn without noise; fit it again on"
                " both logs (for people in both, the epsilons of the two fits add up)"
            )
        if retire and items is None:
            raise ConfigError("retiring items needs the catalogue of those that stay; name it with --items")
        growth = grow(self.dataset, log, items, users)
        gone = sorted(set(growth.dataset.items.ids) - set(items.table["item_id"])) if retire and items else []
        if growth.dataset.fingerprint == self.dataset.fingerprint and not gone:
            return self
        began = time.monotonic()
        options = build(UpdateConfig, "update", {**to_table(self.config.update), **(settings or {})}, {})
        config = replace(self.config, split=replace(self.config.split, everything=True), update=options)
        text, num_read, problems = self._text_of(growth.dataset)
        encoded = time.monotonic()
        model, source_I = self._carried(growth.dataset, config, text)
        records = self.run.shards
        data = TrainingData(growth.dataset, split_dataset(growth.dataset, config.split).full)
        if isinstance(model, CountedModel):
            model.count(data)
            moments, before = {}, {}
        else:
            assert isinstance(model, TrainedModel)
            as_it_was = Recommender(growth.dataset, model, config, text, self._carried_counts(source_I), self.run)
            ndcg_B = as_it_was.ndcg_of(as_it_was.first_cases(growth))
            before = {"ndcg_at_10_before": float(ndcg_B.mean()), "cases": len(ndcg_B)} if len(ndcg_B) else {}
            moments = self._carried_moments(model, source_I)
            if growth.is_new_N.any() and isinstance(model, Sharded):
                sharded = learn_shards_further(self._sharded(model, moments), growth, config, text, progress)
                model, moments = sharded.model, sharded.moments
                records = [asdict(record) for record in sharded.records]
            elif growth.is_new_N.any():
                moments = learn_further(model, data, growth, config, moments, progress)
        newest = self.dataset.timestamp.max(initial=0)
        lineage = {
            "from": self.run.dataset,
            "interactions": int(growth.is_new_N.sum()),
            "known_before": growth.num_known,
            "older_than_known": int((growth.dataset.timestamp[growth.is_new_N] < newest).sum()),
            "users": len(growth.dataset.users) - len(self.dataset.users),
            "items": len(growth.dataset.items) - len(self.dataset.items),
            "texts_read": num_read,
            "retired": gone,
            "seen_until": int(growth.dataset.timestamp.max(initial=0)),
            **before,
        }
        for fact in ("carries", "folded", "pretrained"):
            # What was learned from somebody who was forgotten is in the weights still, text in the ids, and so on.
            if self.run.lineage.get(fact):
                lineage[fact] = self.run.lineage[fact]
        run = replace(
            self.run,
            dataset=growth.dataset.fingerprint,
            stopped=None,
            best_epoch=None,
            validation_ndcg_at_10=None,
            refit=True,
            seconds={"encode": round(encoded - began, 2), "train": round(time.monotonic() - encoded, 2)},
            peak_memory_bytes=peak_memory_bytes(),
            warnings=growth.notes + problems,
            curve=[],
            versions=versions(),
            hardware=hardware(),
            lineage=lineage,
            shards=records,
        )
        grown = Recommender(growth.dataset, model, config, text, data.item_counts(), run, lambda: moments)
        return grown.over(without(growth.dataset, items=gone)) if gone else grown

    def over(self, dataset: Dataset, learned_N: np.ndarray | None = None) -> "Recommender":
        """Return this model over another dataset, nothing being learned; new items go by their text.

        Args:
            dataset: What people did, and the items.
            learned_N: Which interactions a model without gradient steps is to be counted on; of each person a stretch.
                None: all that its split lets it learn.
        """
        text, _, problems = self._text_of(dataset)
        for problem in problems:
            warn(problem, stacklevel=2)
        model, source_I = self._carried(dataset, self.config, text)
        moments: dict[str, torch.Tensor] = {}
        if isinstance(model, CountedModel):
            full = split_dataset(dataset, self.config.split).full
            model.count(TrainingData(dataset, full if learned_N is None else stretches_of(dataset, learned_N)))
        else:
            moments = self._carried_moments(model, source_I)
        run = replace(self.run, dataset=dataset.fingerprint)
        return Recommender(dataset, model, self.config, text, self._carried_counts(source_I), run, lambda: moments)

    def without_users(self, users: Sequence[str]) -> "Recommender":
        """Return this model without what some people did, and without a test that could tell.

        Nothing is left of it in the data, in histories and in what is counted. Weights carry what they learned until
        the model is fitted again, and `run.lineage["carries"]` names the shards, from 0, whose weights do.
        """
        everything = replace(self.config.split, everything=True)
        after = self.over(without(self.dataset, users=users))
        data = TrainingData(after.dataset, split_dataset(after.dataset, everything).full)
        after.config = replace(self.config, split=everything)
        carries = self._shards_of(users)
        if not self.run.privacy:  # else nothing was counted, and is not to be now
            after.counts_I = data.item_counts()
            if isinstance(after.model, Sharded):
                after.model.resume(data, carries)
            elif isinstance(after.model, TrainedModel):
                after.model.resume(data)
        if isinstance(after.model, TrainedModel):
            after.run = replace(after.run, lineage={**after.run.lineage, "carries": carries})
        return after

    def fit_again(self, config: RunConfig, progress: Progress | None = None) -> "Recommender":
        """Fit from nothing what carries what people did who were forgotten: all of it, or some shards.

        Args:
            config: The run, that of this model but for what its split holds out.
            progress: Told what is going on.
        """
        if not isinstance(self.model, Sharded) or self.run.lineage.get("folded"):
            # Beside members whose text is part of their ids, one that is fitted anew would have none to read.
            settings, is_folded = config.to_toml(), bool(self.run.lineage.get("folded"))
            # What a folded model holds of pictures is zero: they are looked at again, where they are still there.
            known = self.text.others if self.text and not is_folded else ()
            return Recommender.fit(self.dataset, config.model_name, settings=settings, progress=progress, known=known)
        began = time.monotonic()
        split = split_dataset(self.dataset, config.split)
        before = self._sharded(self.model, self.moments())
        again = self.run.lineage["carries"]
        sharded = fit_shards(self.dataset, split, config, self.text, before=before, again=again, progress=progress)
        run = replace(
            self.run,
            split=split.fingerprint(self.dataset),
            refit=config.training.refit,
            seconds={"encode": 0.0, "train": round(time.monotonic() - began, 2)},
            peak_memory_bytes=peak_memory_bytes(),
            warnings=_shard_warnings(sharded),
            versions=versions(),
            hardware=hardware(),
            lineage={"pretrained": digest} if (digest := self.run.lineage.get("pretrained")) else {},
            shards=[asdict(record) for record in sharded.records],
        )
        counts_I = TrainingData(self.dataset, split.full if config.training.refit else split.train).item_counts()
        return Recommender(self.dataset, sharded.model, config, self.text, counts_I, run, lambda: sharded.moments)

    def _shards_of(self, users: Sequence[str]) -> list[int]:
        """Return the shards that have learned from some people, and those that carry others who were forgotten."""
        num_shards = self.config.privacy.shards
        if num_shards == 1 or not self.config.split.everything or self.run.lineage.get("folded"):
            # Where a test was held out, when it begins depends on everybody, and what each shard learned on that.
            return list(range(num_shards))
        return sorted({*self.run.lineage.get("carries", []), *(shard_of(user, num_shards) for user in users)})

    def _sharded(self, model: Sharded, moments: Mapping[str, torch.Tensor]) -> ShardedResult:
        return ShardedResult(model, dict(moments), [ShardRecord(**record) for record in self.run.shards])

    def _text_of(self, dataset: Dataset) -> tuple[ItemText | None, int, list[str]]:
        """Read what items say that are new or say something else.

        Returns:
            What there is now, how many items were read, and what could not be.
        """
        if self.text is None:
            return None, 0, []
        template = self.config.encoder.template
        known = dict(zip(self.dataset.items.ids, self.text.said(self.dataset.item_table, template), strict=True))
        said, titles = self.text.said(dataset.item_table, template), ["", *item_titles(dataset.item_table)]
        text = self.text.of_rows(np.array([0, *self.dataset.items.indices_of(dataset.items.ids)]), titles)
        nothing = tuple("" for _ in text.all_vectors)
        held_I = self.holds_text(self.dataset.items.indices_of(dataset.items.ids))
        news = {
            row: _news(one, known.get(id_, nothing))
            for row, (id_, one) in enumerate(zip(dataset.items.ids, said, strict=True), start=1)
            if known.get(id_, nothing) != one and not held_I[row - 1]
        }
        if not news:
            return text, 0, []
        rows = np.array(list(news))
        embedding_NE, problems = text.read_said(list(news.values()), rows.tolist())
        text.put(rows, embedding_NE)
        return text, len(news), [describe_problems(name, wrong) for name, wrong in problems.items()]

    def _carried(self, dataset: Dataset, config: RunConfig, text: ItemText | None) -> tuple[Model, torch.Tensor]:
        """Return the model over another catalogue, and the index that each item of that has in this one, or -1."""
        if isinstance(self.model, TrainedModel) and not self.model.can_resume:
            raise ConfigError(
                f"{config.model_name} cannot go on learning from where it was; fit it on all the data, or use weave"
            )
        model = new_model(dataset, config, text)
        source_I = indices_in(self.dataset.items, dataset.items)
        if not isinstance(model, CountedModel):
            model.take_over(self.model, source_I)
        return model, source_I

    def _carried_counts(self, source_I: torch.Tensor) -> np.ndarray:
        return np.where(source_I >= 0, self.counts_I[source_I.clamp_min(0)], 0)

    def _carried_moments(self, model: Model, source_I: torch.Tensor) -> dict[str, torch.Tensor]:
        return carried_moments(model, self.model, source_I, self.moments())

    def foresee(self, log: Interactions, items: Entities | None = None) -> np.ndarray:
        """Ask for what happened since without learning it: NDCG@10 for the first new interaction of everybody.

        Args:
            log: What happened since.
            items: New items, which go by their text.

        Returns:
            One value for each person who had some history, in the order of their ids; of at most
            `training.validation_cases` of them, chosen at random once.
        """
        growth = grow(self.dataset, log, items, None)
        return self.over(growth.dataset, ~growth.is_new_N).ndcg_of(self.first_cases(growth))

    def first_cases(self, growth: Growth) -> Cases:
        """Return the first new interaction of everybody who had some before; of `training.validation_cases` at most."""
        return growth.first_cases().sample(self.config.training.validation_cases, self.config.training.seed)

    def ndcg_of(self, cases: Cases) -> np.ndarray:
        """Return the NDCG@10 of each case, shape (B,)."""
        if len(cases) == 0:
            return np.zeros(0)
        lists = self.rank_cases(cases, 10).item_index_BK
        return metric_values(lists, self.dataset.item_index[cases.target], [10])["NDCG@10"]

    # Recommending

    def recommend(
        self,
        user: str | None = None,
        history: Sequence[str | Interaction] | None = None,
        *,
        k: int = 10,
        context: Mapping[str, str | float] | None = None,
        include_seen: bool | None = None,
        explain: bool = False,
        language: str = "en",
    ) -> RankedList:
        """Recommend what comes next for a user of the dataset, or for any history at all.

        Args:
            user: A user id of the dataset, whose whole history is used.
            history: Item ids or interactions, oldest first. Items the catalogue does not hold are skipped and
                counted; an empty history gets the popular list.
            k: Length of the list.
            context: The situation now, by column: `{"location": "Shanghai"}`, and `timestamp`, the time in UTC
                seconds. Words that training did not know change nothing.
            include_seen: Whether items of the history may be recommended again. Unset: as measured on the data.
            explain: Whether every item says why it is there.
            language: Of the sentences that do: `en` or `zh`.

        Raises:
            UnknownIdError: Nobody of that name is in the dataset.
            ConfigError: Neither or both of user and history, or k below 1.
        """
        if (user is None) == (history is None):
            raise ConfigError("give either user or history, one of them")
        if user is not None:
            return self.recommend_users(
                [user], k=k, context=context, include_seen=include_seen, explain=explain, language=language
            )[0]
        assert history is not None
        return self.recommend_histories(
            [history], k=k, context=context, include_seen=include_seen, explain=explain, language=language
        )[0]

    def recommend_users(
        self,
        users: Sequence[str],
        *,
        k: int = 10,
        context: Mapping[str, str | float] | None = None,
        include_seen: bool | None = None,
        explain: bool = False,
        language: str = "en",
    ) -> list[RankedList]:
        """Recommend to users of the dataset; `recommend` says how."""
        checked_language(language)
        lists = []
        for begin in range(0, len(users), USERS_AT_ONCE):
            some = users[begin : begin + USERS_AT_ONCE]
            histories = self._in_context(self._histories_of(some, self.model.max_length), context)
            ranked = self._lists(histories, np.zeros(len(some), int), k, include_seen)
            if explain:
                longer = self._in_context(self._histories_of(some, self.model.max_length + 1), context)
                ranked = self._explained(ranked, longer, language)
            lists += ranked
        return lists

    def _histories_of(self, users: Sequence[str], length: int) -> Histories:
        for user in users:
            if user not in self.dataset.users:
                raise UnknownIdError(
                    f"user {user!r} is not among the {len(self.dataset.users):,} users of the dataset;"
                    " recommend to somebody new by history"
                )
        index_B, offsets = self.dataset.users.indices_of(users).astype(np.int64), self.dataset.user_offsets
        return gather(self.dataset, offsets[index_B], offsets[index_B + 1], length)

    def recommend_histories(
        self,
        histories: Sequence[Sequence[str | Interaction]],
        *,
        k: int = 10,
        context: Mapping[str, str | float] | None = None,
        include_seen: bool | None = None,
        explain: bool = False,
        language: str = "en",
    ) -> list[RankedList]:
        """Recommend to histories that need not be anybody's in the dataset; `recommend` says how."""
        checked_language(language)
        numbered, unknown_B = self._spelled_out(histories, self.model.max_length)
        lists = self._lists(self._in_context(numbered, context), unknown_B, k, include_seen)
        if not explain:
            return lists
        longer, _ = self._spelled_out(histories, self.model.max_length + 1)
        return self._explained(lists, self._in_context(longer, context), language)

    def _spelled_out(
        self, histories: Sequence[Sequence[str | Interaction]], length: int
    ) -> tuple[Histories, np.ndarray]:
        spelled = [[Interaction(i) if isinstance(i, str) else i for i in history] for history in histories]
        return histories_from_interactions(self.dataset, spelled, length)

    # Explaining

    def explain(
        self,
        item_id: str,
        user: str | None = None,
        history: Sequence[str | Interaction] | None = None,
        *,
        context: Mapping[str, str | float] | None = None,
        words: bool = False,
        language: str = "en",
    ) -> Explanation:
        """Say what the score of any one item comes from, for a user of the dataset or for a history.

        Every interaction that the model reads is taken away in turn. Contributions are exact: the score, minus what it
        would be otherwise.

        Args:
            item_id: Any item of the catalogue, recommended or not.
            user: As for `recommend`.
            history: As for `recommend`.
            context: As for `recommend`.
            words: Whether to have the encoder read the item's text again without each of its words.
            language: Of the sentence: `en` or `zh`.

        Raises:
            UnknownIdError: The item or the user is not known.
            ConfigError: Neither or both of user and history, or a language without sentences.
        """
        spoken = checked_language(language)
        if (user is None) == (history is None):
            raise ConfigError("give either user or history, one of them")
        row, length = self._known_item(item_id), self.model.max_length + 1
        if user is not None:
            asked = self._histories_of([user], length)
        else:
            assert history is not None
            asked, _ = self._spelled_out([history], length)
        asked = self._in_context(asked, context)
        is_answered = bool(self.model.can_answer(asked)[0])
        explanation = self._reasoner.explain(
            asked if is_answered else None, [row], spoken, most_tried=self.model.max_length, most_named=None
        )[0]
        if not (words and is_answered):
            return explanation
        if self.text is None or self.config.encoder.name == "none" or type(self.model).read_items is Model.read_items:
            note = f"{self.config.model_name} as it was fitted reads no item text, so no word of it is a reason"
            return replace(explanation, notes=[*explanation.notes, note])
        if self.run.lineage.get("folded"):
            note = "this model was compressed, its texts are part of its ids, so no word can be taken away by itself"
            return replace(explanation, notes=[*explanation.notes, note])
        text = item_texts(self.dataset.item_table[[row - 1]], self.config.encoder.template)[0]
        read = text_reader(self.config.encoder, cache_folder() / "explained-words.h5")
        # A copy, whose text is changed; in single precision, as the catalogue's text was read.
        told = word_reasons(Explainer(fixed_copy(self.model).float()), asked, row, text, read)
        return with_reasons(explanation, told, spoken)

    def _explained(self, lists: list[RankedList], histories: Histories, language: str) -> list[RankedList]:
        """Let every item of lists say why it is there.

        Args:
            lists: As they were made.
            histories: For whom, with one interaction more than the model reads.
            language: Of the sentences.
        """
        spoken, answered_B = checked_language(language), self.model.can_answer(histories)
        explained = []
        for place, ranked in enumerate(lists):
            history = histories.rows(np.array([place])) if answered_B[place] else None
            rows = [self.dataset.items.index_of(item.item_id) for item in ranked.items]
            why = self._reasoner.explain(history, rows, spoken)
            items = [
                replace(item, because=told.sentence, reasons=told.reasons)
                for item, told in zip(ranked.items, why, strict=True)
            ]
            explained.append(replace(ranked, items=items))
        return explained

    @cached_property
    def _reasoner(self) -> Reasoner:
        behaviors = ["", *self.dataset.behavior.vocabulary.ids]
        names = Names(self.dataset.items.id_of, self.titles.__getitem__, behaviors.__getitem__)
        explainer = Explainer(self._ranker.model, self._ranker.scorer)
        return Reasoner(explainer, names, lambda row: bool(self.counts_I[row] == 0))

    def similar_items(self, item_id: str, k: int = 10) -> list[Recommendation]:
        """Return the items that the model places nearest to one, by the cosine of their vectors.

        Raises:
            UnknownIdError: The catalogue does not hold the item.
        """
        return self._recommendations(self._ranker.neighbours(self._known_item(item_id), _checked_k(k)), 0)

    def _known_item(self, item_id: str) -> int:
        item = self.dataset.items.index_of(item_id)
        if item == PADDING_INDEX:
            raise UnknownIdError(
                f"item {item_id!r} is not in the catalogue of {len(self.dataset.items):,} items;"
                " check its spelling, ids are kept as the log spells them"
            )
        return item

    def rank(
        self, histories: Histories, k: int, include_seen: bool | None = None, target_B: np.ndarray | None = None
    ) -> Rankings:
        """Rank the catalogue for each history: what `recommend` shows and what `evaluate` measures.

        A history that the model has no answer to, as an empty one, gets the items most frequent in the training data.
        """
        seen = self.config.include_seen if include_seen is None else include_seen
        answered_B = self.model.can_answer(histories)
        if answered_B.all():
            return self._ranker.rank(histories, k, seen, target_B)
        rankings = Rankings.empty(len(histories), k)
        for rows, ranker in (
            (np.flatnonzero(answered_B), self._ranker),
            (np.flatnonzero(~answered_B), self._popular_ranker),
        ):
            some_B = None if target_B is None else target_B[rows]
            rankings.put(rows, ranker.rank(histories.rows(rows), k, seen, some_B))
        return rankings

    # Evaluating

    def evaluate(
        self,
        cutoffs: Sequence[int] = (5, 10, 20),
        *,
        include_seen: bool | None = None,
        slice_by: Sequence[str] = (),
        category: str | None = None,
        rank: Callable[[Cases, int, bool | None], Rankings] | None = None,
    ) -> Evaluation:
        """Rank the whole catalogue for every test case of the split the model was trained under.

        Args:
            cutoffs: How much of a list to read.
            include_seen: Whether items of the history may be recommended again. Unset: as measured on the data.
            slice_by: Columns of the catalogue, the users or the log whose values get a slice each.
            category: Column of the catalogue for miscalibration. Unset: the first that holds categories.
            rank: Ranks cases as `rank_cases` does, but elsewhere: on the machines of a cluster.

        Raises:
            ConfigError: The model has seen all interactions, or the split holds no test case.
        """
        split_config = self.config.split
        if split_config.everything:
            raise ConfigError(
                "this model was fitted with --all, on every interaction, so nothing is left to test it on;"
                " fit another one without --all"
            )
        if not cutoffs:
            raise ConfigError("no cutoff to evaluate at; give some, as in 5,10,20")
        for cutoff in cutoffs:
            _checked_k(cutoff)
        split = split_dataset(self.dataset, split_config)
        if len(split.test) == 0:
            raise ConfigError(
                f"the {split_config.protocol} split holds no test case: no user has history before and an interaction"
                " in the test; prepare more data or choose another protocol"
            )
        began = time.monotonic()
        rankings = (rank or self.rank_cases)(split.test, max(cutoffs), include_seen)
        seconds = time.monotonic() - began
        judge = Judge(
            self.dataset,
            split_config,
            self.counts_I,
            self.text.leading_vectors if self.text else None,
            category=category,
            columns=slice_by,
        )
        seen = self.config.include_seen if include_seen is None else include_seen
        return judge.evaluate(self.config.model_name, rankings, cutoffs, include_seen=seen, seconds=seconds)

    def estimate_clicks(
        self, exposures: Source, *, reward: str = "clicked", k: int = 10, clip: float = 100.0
    ) -> dict[str, Estimate]:
        """Estimate from a log of what was shown how often the model's lists would be clicked, bought, ...

        Exposures are asked in their order, each with the history before it. Those that are not later than what the
        model learned from, and those of unknown users, say nothing and are left out.

        Args:
            exposures: A file of `user_id`, `item_id` (what was shown), `timestamp`, the reward, and `propensity`, the
                probability with which it was shown, where the log has it.
            reward: Column with 1 where it was clicked and 0 where not, or any other number: a conversion, a price.
            k: Length of the lists.
            clip: Largest weight of an exposure; larger ones are cut to it.

        Returns:
            `replay`, right where items were shown at random; and where there is a `propensity`, `IPS` and `SNIPS`.

        Raises:
            ConfigError: There is no reward column, or no exposure that says anything.
        """
        table = read_interactions(exposures).table
        if reward not in table.columns or not table[reward].dtype.is_numeric():
            known = ", ".join(name for name, dtype in table.schema.items() if dtype.is_numeric())
            raise ConfigError(f"the exposures have no column {reward!r} of numbers; they have: {known}")
        cases, usable = self._exposure_cases(table)
        if not usable.any():
            raise ConfigError(
                "no exposure is of a known user with history and later than what the model learned from;"
                " bring newer ones"
            )
        shown = table.filter(pl.Series(usable))
        lists = self.rank_cases(cases, _checked_k(k)).item_index_BK
        shown_N = self.dataset.items.indices_of(shown["item_id"])
        reward_N = shown[reward].fill_null(0).to_numpy()
        estimates = {"replay": replay_rate(shown_N, reward_N, lists)}
        if "propensity" in shown.columns:
            propensity_N = shown["propensity"].to_numpy()
            ips, snips = inverse_propensity_rate(shown_N, reward_N, lists, propensity_N, clip)
            estimates |= {"IPS": ips, "SNIPS": snips}
        return estimates

    def _exposure_cases(self, table: pl.DataFrame) -> tuple[Cases, np.ndarray]:
        """Return the history before each usable exposure, and which are usable."""
        dataset = self.dataset
        user_N = dataset.users.indices_of(table["user_id"]).astype(np.int64)
        time_N = table["timestamp"].to_numpy()
        start_N, end_N = dataset.user_offsets[user_N], dataset.user_offsets[user_N + 1]
        split = split_dataset(dataset, self.config.split)
        learned_until_U = np.where(
            split.full.end > split.full.start, dataset.timestamp[np.maximum(split.full.end, 1) - 1], -1
        )
        history_end_N = np.array(
            [
                start + np.searchsorted(dataset.timestamp[start:end], time)
                for start, end, time in zip(start_N, end_N, time_N, strict=True)
            ],
            dtype=np.int64,
        )
        is_later_N = time_N > learned_until_U[user_N]
        if split.split_time is not None:
            is_later_N &= time_N >= split.split_time
        usable_N = (user_N > 0) & (history_end_N > start_N) & is_later_N
        # What came next is not what is asked here; any position serves as the target.
        last_N = history_end_N[usable_N] - 1
        return Cases(user_N[usable_N], start_N[usable_N], history_end_N[usable_N], last_N), usable_N

    # Items without interactions

    def with_items(self, items: pl.DataFrame | str | Path) -> "Recommender":
        """Return a recommender that also knows some new or changed items, from their catalogue rows alone.

        Nothing is trained: the encoder reads their text, and the model places them by it.

        Args:
            items: Rows with an `item_id`, or a file of them in any known format.
        """
        if self.text is None:
            raise ConfigError(
                f"this {self.config.model_name} model was fitted without item text, so a new item cannot be placed;"
                " fit it with an encoder"
            )
        table = items if isinstance(items, pl.DataFrame) else read_items(items).table
        dataset = self.dataset.with_items(table)
        rows = dataset.items.indices_of(table["item_id"])
        known_rows = np.where(rows <= len(self.dataset.items), rows, PADDING_INDEX)
        news = self.text.said(dataset.item_table[(rows - 1).tolist()], self.config.encoder.template)
        if self.text.others:
            # A picture that is known need not be there any more.
            known = iter(self.text.said(self.dataset.item_table[(known_rows[known_rows > 0] - 1).tolist()], None))
            before = [next(known) if row else ("",) * len(one) for row, one in zip(known_rows, news, strict=True)]
            pairs = zip(news, before, strict=True)
            news = [(one[0], *_news(one[1:], known_one[1:])) for one, known_one in pairs]
        embedding_NE, problems = self.text.read_said(news, known_rows.tolist())
        for name, wrong in problems.items():
            warn(describe_problems(name, wrong), stacklevel=2)
        embedding_NE[self.holds_text(rows)] = 0
        return self._with_catalogue(dataset, rows, embedding_NE)

    def holds_text(self, rows_N: Sequence[int] | np.ndarray) -> np.ndarray:
        """Tell of which items the id holds the text, as compression leaves them: another text must not be added to it.

        Args:
            rows_N: Item indices; 0 and those beyond the catalogue are items that it does not know.
        """
        if self.text is None or not self.run.lineage.get("folded"):
            return np.zeros(len(rows_N), dtype=bool)
        ids, vectors_IE = self.dataset.items.ids, self.text.vectors_IE
        # A row that waits for an item is named as no item can be.
        return np.array(
            [0 < row <= len(ids) and not ids[row - 1].startswith("\0") and not vectors_IE[row].any() for row in rows_N],
            dtype=bool,
        )

    def with_room(self, spare: int) -> "Recommender":
        """Return a recommender with rows for items to come, which `Model.read_items` fills; they follow the last item.

        A model that reads no text has no use for them, and is returned as it is.
        """
        if self.text is None:
            return self
        # No log can spell such an id, so nobody asks for a row before it stands for something.
        blank = pl.DataFrame({"item_id": [f"\0{number}" for number in range(spare)]}, schema={"item_id": pl.String})
        no_text = np.zeros((spare, sum(v.shape[1] for v in self.text.all_vectors)), dtype=np.float32)
        rows = np.arange(spare) + len(self.dataset.items) + 1
        return self._with_catalogue(self.dataset.with_items(blank), rows, no_text)

    def _with_catalogue(self, dataset: Dataset, rows: np.ndarray, embedding_NE: np.ndarray) -> "Recommender":
        """Return this recommender over a catalogue that has some rows more, or other ones."""
        assert self.text is not None
        size = len(dataset.items) + 1
        text = self.text.grown(dataset.item_table, rows, embedding_NE)
        model = blank_model(dataset, self.config, text)
        known = len(self.dataset.items) + 1
        model.take_over(self.model, torch.cat([torch.arange(known), torch.full((size - known,), -1)]))
        counts_I = np.zeros(size, dtype=self.counts_I.dtype)
        counts_I[: len(self.counts_I)] = self.counts_I
        return Recommender(dataset, model, self.config, text, counts_I, self.run)

    # Keeping

    def save(self, folder: str | Path) -> None:
        """Write everything that recommending needs into a folder, which takes the place of an earlier model there.

        Raises:
            ConfigError: The folder holds something else.
        """
        check_replaceable(Path(folder))
        tables = {
            "recloom": {"format": FORMAT_VERSION, "version": __version__, "model": self.config.model_name},
            **self.config.to_toml(),
        }
        with replacing(Path(folder)) as beside, _as_os_error():
            beside.mkdir()
            (beside / "config.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
            write_record(self.run, beside)
            save_file({n: t.contiguous() for n, t in self.model.state_dict().items()}, beside / "model.safetensors")
            vectors = {"popularity": torch.from_numpy(self.counts_I)}
            if isinstance(self.model, VectorModel):
                with torch.no_grad():
                    vectors["vectors"] = self.model.eval().item_vectors().contiguous()
            save_file(vectors, beside / "item_vectors.safetensors")
            if self.text is not None:
                text = {"vectors": torch.from_numpy(self.text.vectors_IE)}
                text |= {other.name: torch.from_numpy(other.vectors_IE) for other in self.text.others}
                save_file(text, beside / "item_text.safetensors")
            if moments := self.moments():
                save_file({name: values.contiguous() for name, values in moments.items()}, beside / MOMENTS_NAME)
            self.dataset.copy_to(beside)
            write_checksums(beside)

    @classmethod
    def load(cls, folder: str | Path) -> "Recommender":
        """Open what `save` wrote.

        Raises:
            ArtifactError: The folder is no model folder, is damaged, or was written by another version.
        """
        recover(Path(folder))
        folder = current_folder(Path(folder))
        if missing := [name for name in REQUIRED_FILES if not (folder / name).exists()]:
            raise ArtifactError(
                f"{folder} is not a model folder: it lacks {missing[0]}; make one with: recloom fit DATASET --out MODEL"
            )
        try:
            tables = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
            run = read_record(folder)
            facts = tables.pop("recloom")
            if facts["format"] != FORMAT_VERSION:
                raise ArtifactError(
                    f"{folder} is a model of format {facts['format']} written by recloom {facts['version']}, this"
                    f" recloom {__version__} reads format {FORMAT_VERSION}; fit it again"
                )
            weights = load_tensors(folder / "model.safetensors")
            popularity = load_file(folder / "item_vectors.safetensors")["popularity"].numpy()
            vectors: dict[str, np.ndarray] = {}
            if (folder / "item_text.safetensors").exists():
                stored = load_tensors(folder / "item_text.safetensors")
                vectors = {"vectors": stored["vectors"].numpy(), **{n: t.numpy() for n, t in stored.items()}}
        except (SafetensorError, tomllib.TOMLDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ArtifactError(f"the model in {folder} is damaged ({error}); fit it again") from None
        if not (folder / CHECKSUMS).exists() or (damaged := damaged_file(folder)):
            raise ArtifactError(
                f"the model in {folder} is damaged: {damaged if (folder / CHECKSUMS).exists() else CHECKSUMS} is not"
                " what was written; fit it again, or restore it"
            )
        dataset = Dataset.open(folder)
        config = RunConfig.resolve(facts["model"], dataset, tables)
        text = None
        if vectors:
            text = _opened_text(vectors, config.encoder, ["", *item_titles(dataset.item_table)], run.modalities)
        model = blank_model(dataset, config, text)
        try:
            model.load_state_dict(weights)
        except RuntimeError:
            raise ArtifactError(
                f"the weights in {folder} do not fit its config and dataset; it was changed by hand, fit it again"
            ) from None
        has_moments = (folder / MOMENTS_NAME).exists()
        moments = partial(load_file, folder / MOMENTS_NAME) if has_moments else dict
        return cls(dataset, model, config, text, popularity, run, moments)

    # Parts

    @cached_property
    def _ranker(self) -> Ranker:
        return Ranker(self.model)

    @cached_property
    def _popular_ranker(self) -> Ranker:
        popular = Popular(Popular.Config(), self.dataset, None)
        popular.count_I = torch.from_numpy(self.counts_I).float()
        return Ranker(popular)

    def rank_cases(self, cases: Cases, k: int, include_seen: bool | None = None) -> Rankings:
        """Rank the catalogue for the history of each case, and find the place of what was taken next."""
        parts = []
        for begin in range(0, len(cases), USERS_AT_ONCE):
            some = slice(begin, begin + USERS_AT_ONCE)
            histories = gather(
                self.dataset,
                cases.history_start[some],
                cases.history_end[some],
                self.model.max_length,
                cases.target[some],
                self.config.split.told,
            )
            target_B = self.dataset.item_index[cases.target[some]]
            parts.append(self.rank(histories, k, include_seen, target_B))
        return Rankings.concatenate(parts)

    def _in_context(self, histories: Histories, context: Mapping[str, str | float] | None) -> Histories:
        """Say when and where the next item is asked for."""
        if not context:
            return histories
        if not self.model.reads_requests:
            warn(
                f"{self.config.model_name} as it was fitted does not read when and where it is asked, so the context"
                " changes nothing",
                stacklevel=2,
            )
        columns = self.dataset.context
        if unknown := sorted(set(context) - {*columns, "timestamp"}):
            raise ConfigError(f"unknown context {', '.join(unknown)}; there are: {', '.join(['timestamp', *columns])}")
        values = {name: context_value(column, context.get(name)) for name, column in columns.items()}
        request = Requests(
            np.full(len(histories), _request_time(context.get("timestamp"))),
            {name: np.full(len(histories), value, columns[name].values.dtype) for name, value in values.items()},
        )
        return replace(histories, request=request)

    def _lists(
        self, histories: Histories, unknown_B: np.ndarray, k: int, include_seen: bool | None
    ) -> list[RankedList]:
        rankings = self.rank(histories, _checked_k(k), include_seen)
        answered_B = self.model.can_answer(histories)
        return [
            RankedList(
                self._recommendations(rankings, row),
                int(unknown_B[row]),
                self.config.model_name if answered_B[row] else "popular",
                [self.dataset.items.id_of(int(item)) for item in histories.newest(row, NEWEST_TOLD)],
            )
            for row in range(len(histories))
        ]

    def _recommendations(self, rankings: Rankings, row: int) -> list[Recommendation]:
        items = self.dataset.items
        return [
            Recommendation(rank, items.id_of(index), score, self.titles[index])
            for rank, (index, score) in enumerate(
                zip(rankings.item_index_BK[row].tolist(), rankings.score_BK[row].tolist(), strict=True), start=1
            )
            if index != PADDING_INDEX
        ]

    @cached_property
    def titles(self) -> list[str]:
        """What to call each item, by item index; "" where the catalogue gives nothing to call it by."""
        return self.text.titles if self.text else ["", *item_titles(self.dataset.item_table)]


@contextmanager
def _as_os_error() -> Iterator[None]:
    """A disk that is full is the same for everybody who writes."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, f"writing failed ({error})") from error


def _opened_text(
    vectors: Mapping[str, np.ndarray], config: EncoderConfig, titles: list[str], made_by: Mapping[str, str]
) -> ItemText:
    """Return what `save` kept of text and of what is beside it; encoders are loaded when something is to be read."""
    others = tuple(
        opened_modality(config, name, vectors_IE, made_by.get(name, ""))
        for name, vectors_IE in sorted(vectors.items())
        if name != "vectors"
    )
    if config.name == "none":
        return ItemText.without_words(titles, others)
    return ItemText(vectors["vectors"], titles, text_reader(config), others)


def _news(said: Said, known: Said) -> Said:
    """Return what an item says that is not known."""
    return tuple(None if one == before else one for one, before in zip(said, known, strict=True))


def read_record(folder: Path) -> RunRecord:
    """Read how the model in a folder came about."""
    return RunRecord(**json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def write_record(run: RunRecord, folder: Path) -> None:
    """Write how a model came about into its folder."""
    (folder / "metrics.json").write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")


def check_replaceable(folder: Path) -> None:
    """Make sure that saving a model into a folder would replace a model or nothing.

    Raises:
        ConfigError: The folder holds something else.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "config.toml").exists()):
        raise ConfigError(f"{folder} holds something that is not a model, and would be replaced; choose another folder")


def _warnings(split: Split) -> list[str]:
    """Say what whoever relies on the model should know of the data it came from."""
    warnings = []
    if len(split.validation) < FEW_CASES:
        what = "no user" if len(split.validation) == 0 else f"only {len(split.validation)} users"
        warnings.append(f"{what} could be held out for validation; how long to train is a guess")
    return warnings


def _check_enough_people(dataset: Dataset, config: RunConfig) -> None:
    if config.privacy.shards > len(dataset.users):
        raise ConfigError(
            f"privacy.shards is {config.privacy.shards}, and the dataset holds {len(dataset.users):,} people; each"
            " shard learns from its own people alone, so take a few shards of many people each"
        )


def _shard_warnings(sharded: ShardedResult) -> list[str]:
    num_shards, warnings = len(sharded.records), []
    if num_empty := sum(is_blank(member) for member in sharded.model.members):
        warnings.append(
            f"{num_empty} of {num_shards} shards hold nobody with two interactions and have learned nothing"
        )
    cases = [record.validation_cases for record in sharded.records if record.validation_cases is not None]
    if num_guessed := sum(number < FEW_CASES for number in cases):
        warnings.append(
            f"{num_guessed} of {num_shards} shards could hold out fewer than {FEW_CASES} cases for validation; how long"
            " to train them is a guess, take fewer shards"
        )
    return warnings


def _private_warnings(record: PrivacyRecord) -> list[str]:
    """Say where a promise is worth little."""
    warnings = []
    if not record.secret_noise:
        warnings.append(
            "privacy.seed was given: whoever knows it can take the noise off, and nothing is promised against them"
        )
    if record.delta * record.people > 1:
        warnings.append(
            f"privacy.delta is {record.delta:.2g}, more than one over the {record.people:,} people: to let out all that"
            " one of them did would keep that promise; choose a smaller one"
        )
    return warnings


def _check_shareable(config: RunConfig) -> None:
    """Refuse early what only this process can fit."""
    if issubclass(MODELS[config.model_name], CountedModel):
        raise ConfigError(
            f"{config.model_name} is counted in one pass and has no gradient steps to share; leave --ray out"
        )
    for option, is_set in (
        ("epsilon", config.privacy.epsilon is not None),
        ("shards", config.privacy.shards > 1),
    ):
        if is_set:
            raise ConfigError(f"privacy.{option} is for fitting on one machine; leave it or --ray out")


def load_teacher(dataset: Dataset, config: RunConfig) -> Teacher | None:
    """Load the model to learn from.

    Raises:
        ConfigError: It was fitted on other data or under another split, or does not learn by steps itself.
    """
    folder = config.training.teacher
    if folder is None:
        return None
    other = Recommender.load(folder)
    if other.dataset.fingerprint != dataset.fingerprint or other.config.split != config.split:
        raise ConfigError(
            f"the teacher {folder} was fitted on other data or under another split, and could tell what is held out;"
            " fit it on this dataset under the same split"
        )
    if other.run.refit and not config.split.everything:
        raise ConfigError(
            f"the teacher {folder} has learned from validation in the end, and could tell what validation asks; fit it"
            " with --set training.refit=false"
        )
    if not isinstance(other.model, TrainedModel) or not isinstance(other.model, VectorModel):
        raise ConfigError(f"the teacher {folder} is {other.config.model_name}, which has no opinion on single steps")
    return Teacher(other.model, config.training.teacher_share)


def _request_time(timestamp: str | float | None) -> int:
    try:
        return int(float(timestamp or 0))
    except (ValueError, OverflowError):
        raise ConfigError(f"the context timestamp is {timestamp!r}; it has to be UTC seconds") from None


def _checked_k(k: int) -> int:
    if k < 1:
        raise ConfigError(f"k is {k}; a list needs at least one place")
    return k
