"""Models by name -> one table of them, on the same questions, with tests of who is better.

Shapes: B cases, K cutoff, I catalogue (with the padding row).
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recloom.comparison.audit import Finding, audit_catalogue, audit_model, audit_split
from recloom.comparison.glance import Glance, glance_at
from recloom.comparison.samples import ItemMap, Sample, map_items, sample_users
from recloom.config import Tables, suggestion
from recloom.dataset import Dataset, SplitConfig, split_dataset
from recloom.errors import ConfigError, RecloomError
from recloom.evaluation import Evaluation, Judge, Metric, Slice, with_intervals
from recloom.evaluation.categories import category_shares, column_slices
from recloom.evaluation.significance import PairedDifference, holm, paired_difference
from recloom.fitting import read_catalogue
from recloom.models import MODELS, CountedModel, ItemText, Rankings, TrainingData
from recloom.recommender import Recommender
from recloom.run_config import RunConfig
from recloom.training import Progress, hardware, peak_memory_bytes, versions

MAIN_METRIC = "NDCG"
SIGNIFICANT = 0.05
SEEDED = {"mf": "seed", "random": "seed"}
"""Counted models that depend on chance, and what their seed is called."""


@dataclass(frozen=True)
class Entry:
    """One line of the table: a model, or a variant of it."""

    label: str
    model: str
    settings: Tables
    folder: Path | None = None
    """Where a fitted model is, instead of one to be fitted."""


@dataclass(frozen=True)
class ModelResult:
    """How one line of the table came out."""

    label: str
    model: str
    settings: dict[str, Any]
    """Every option in force."""
    seeds: list[int]
    metrics: dict[str, Metric]
    """Means over users of the mean over seeds, with the interval over users."""
    spread: dict[str, float]
    """Standard deviation over seeds of each mean; empty for one seed."""
    catalogue: dict[str, float]
    slices: dict[str, Slice]
    fit_seconds: float
    """Of one seed, the reading of item text left out: it is done once for all."""
    rank_seconds: float
    """To rank the whole catalogue for every case."""
    curve: list[dict[str, Any]]
    """Validation NDCG@10 and seconds of each epoch, of the first seed."""
    findings: list[Finding]
    error: str | None = None
    """Why there is nothing above, if so."""


@dataclass(frozen=True)
class Pair:
    """Two lines of the table, held against each other case by case."""

    first: str
    second: str
    difference: PairedDifference
    adjusted_p: float
    """After Holm's correction for all pairs of the table."""

    @property
    def verdict(self) -> str:
        """Whose metric is higher beyond the noise: a label, or "tie"."""
        if self.adjusted_p > SIGNIFICANT:
            return "tie"
        return self.first if self.difference.mean > 0 else self.second


@dataclass(frozen=True)
class Window:
    """The same table for another stretch of time."""

    split_time: int
    until: int
    num_cases: int
    ndcg: dict[str, float]
    """By label."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a report says."""

    name: str
    command: str
    """What repeats it; empty where it was not a command."""
    split: dict[str, Any]
    fingerprint: str
    """Of data and split."""
    split_time: int | None
    """Where the test begins, UTC seconds; None where there is no such time."""
    dataset: Glance
    num_cases: int
    unusable_users: int
    include_seen: bool
    cutoffs: list[int]
    main_metric: str
    models: list[ModelResult]
    """Best first; those that failed come last."""
    pairs: list[Pair]
    windows: list[Window]
    findings: list[Finding]
    """Of the split and the catalogue; those of a model stand with it."""
    samples: list[Sample]
    item_map: ItemMap | None
    encode_seconds: float
    peak_memory_bytes: int
    versions: dict[str, str]
    hardware: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is not finite becomes None, for which JSON has a word."""
        plain: dict[str, Any] = _finite(asdict(self))
        for pair, values in zip(self.pairs, plain["pairs"], strict=True):
            values["verdict"] = pair.verdict
        return plain


def parse_entries(models: Sequence[str], variants: Mapping[str, tuple[str, Tables]] | None = None) -> list[Entry]:
    """Read what is to be compared.

    Args:
        models: Names, or folders of fitted models.
        variants: Models with other settings, by the label they get.

    Raises:
        ConfigError: A name is neither a model nor a folder, or something is named twice.
    """
    entries = []
    for name in models:
        if name in MODELS:
            entries.append(Entry(name, name, {}))
        elif (Path(name) / "config.toml").exists():
            entries.append(Entry(Path(name).name, "", {}, Path(name)))
        else:
            raise ConfigError(
                f"unknown model {name!r}, and no folder of a fitted one; {suggestion(name, list(MODELS))}"
            )
    for label, (name, settings) in (variants or {}).items():
        if name not in MODELS:
            raise ConfigError(f"unknown model {name!r} of the variant {label!r}; {suggestion(name, list(MODELS))}")
        entries.append(Entry(label, name, settings))
    labels = [entry.label for entry in entries]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"{twice[0]!r} is named twice; give one of them another label")
    if not entries:
        raise ConfigError("nothing to compare; name some models")
    return entries


def compare(
    dataset: Dataset,
    entries: Sequence[Entry],
    *,
    settings: Tables | None = None,
    seeds: int = 1,
    cutoffs: Sequence[int] = (5, 10, 20),
    windows: int = 1,
    slice_by: Sequence[str] = (),
    category: str | None = None,
    name: str = "dataset",
    command: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Fit every model under one split, ask all of them the same, and test who is better.

    A model that fails is reported with its error; the others go on.

    Args:
        dataset: What people did and what the items say.
        entries: What to compare.
        settings: Options for all of them, by table: the split, the encoder, the training budget.
        seeds: How often to fit what depends on chance.
        cutoffs: How much of a list to read; the middle one decides the order of the table.
        windows: Temporal only: how many successive stretches of time to test on, the last one being the table's.
        slice_by: Columns whose values get a slice each.
        category: Column of the catalogue for miscalibration.
        name: What to call the dataset.
        command: How all this was asked for, to be written down.
        progress: Told what is going on.

    Raises:
        ConfigError: An option makes no sense, the split holds no test case, or a fitted model saw another split.
    """
    settings = settings or {}
    if settings.get("model"):
        raise ConfigError(
            "[model] holds options of one model, which the others do not have; give it to one of them as a variant"
        )
    base = RunConfig.resolve("popular", dataset, settings)
    split = split_dataset(dataset, base.split)
    _check(dataset, entries, base.split, cutoffs, seeds, windows)
    cutoffs = sorted(cutoffs)
    main = f"{MAIN_METRIC}@{cutoffs[len(cutoffs) // 2]}"
    text, encode_seconds = _read_text(dataset, entries, settings, progress)
    counts_I = TrainingData(dataset, split.full).item_counts()
    judge = Judge(dataset, base.split, counts_I, text.leading_vectors if text else None, category, slice_by)
    # A column that is not there is better missed now than after everything was fitted.
    for column in slice_by:
        column_slices(dataset, judge.cases, column)
    if category is not None:
        category_shares(dataset, category)

    results, values, lists = [], {}, {}
    for number, entry in enumerate(entries):
        if progress:
            progress(f"comparing: {entry.label}", number, len(entries))
        try:
            result, values_B, rankings = _run(judge, entry, settings, seeds, cutoffs, progress)
            values[entry.label], lists[entry.label] = values_B[main], rankings
        except Exception as error:  # whatever goes wrong with one model, the others are wanted
            result = ModelResult(entry.label, entry.model, {}, [], {}, {}, {}, {}, 0, 0, [], [], _sentence(error))
        results.append(result)
    results.sort(key=lambda result: -result.metrics[main].mean if result.error is None else np.inf)
    ranked = [result.label for result in results if result.error is None]
    stretches, failures = _backtest(dataset, entries, settings, base.split, cutoffs, windows, main, results, progress)
    has_text_I = np.abs(text.leading_vectors).max(axis=1) > 0 if text else np.zeros(len(dataset.items) + 1, dtype=bool)
    return Comparison(
        name=name,
        command=command,
        split=asdict(base.split) | {"ties": base.split.tie_rule, "told": list(base.split.told)},
        fingerprint=split.fingerprint(dataset),
        split_time=split.split_time,
        dataset=glance_at(dataset, split, has_text_I),
        num_cases=len(split.test),
        unusable_users=split.unusable_users,
        include_seen=base.include_seen,
        cutoffs=list(cutoffs),
        main_metric=main,
        models=results,
        pairs=_pairs(ranked, values),
        windows=stretches,
        findings=audit_split(dataset, split) + audit_catalogue(dataset, base.split) + failures,
        samples=sample_users(dataset, split.test, {label: lists[label] for label in ranked}),
        item_map=map_items(dataset, text, counts_I, category) if text else None,
        encode_seconds=round(encode_seconds, 2),
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
        hardware=hardware(),
    )


def _sentence(error: Exception) -> str:
    """Say in one line what went wrong."""
    said = str(error) if isinstance(error, RecloomError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _check(
    dataset: Dataset,
    entries: Sequence[Entry],
    config: SplitConfig,
    cutoffs: Sequence[int],
    seeds: int,
    windows: int,
) -> None:
    """Refuse before anything is fitted what could not be compared in the end."""
    if not cutoffs or min(cutoffs) < 1:
        raise ConfigError(f"the cutoffs {list(cutoffs)} are no places of a list; give some, as in 5,10,20")
    if seeds < 1 or windows < 1:
        raise ConfigError(f"seeds is {seeds} and windows {windows}; both have to be at least 1")
    if config.everything:
        raise ConfigError("split.everything leaves nothing to compare by")
    if windows > 1 and (config.protocol != "temporal" or config.split_time is not None):
        raise ConfigError("several windows need the temporal protocol without a split_time of its own")
    if windows * config.test_fraction > 0.5:
        raise ConfigError(
            f"{windows} windows of {config.test_fraction:.0%} of the log leave less than half of it to learn from;"
            " choose fewer windows or a smaller split.test_fraction"
        )
    split = split_dataset(dataset, config)
    if len(split.test) == 0:
        raise ConfigError(
            f"the {config.protocol} split holds no test case: no user has history before and an interaction in the"
            " test; prepare more data or choose another protocol"
        )
    for there in _windows(dataset, config, windows):
        if there.split_time == there.test_until or len(split_dataset(dataset, there).test) == 0:
            raise ConfigError(
                f"the window from {there.split_time} to {there.test_until} (UTC seconds) holds no test case; choose"
                " fewer windows"
            )
    for entry in entries:
        if "split" in entry.settings:
            raise ConfigError(f"the variant {entry.label!r} sets [split], but all have to be asked the same")
        if entry.folder is None:
            RunConfig.resolve(entry.model, dataset, entry.settings)
            continue
        run = Recommender.load(entry.folder).run
        if run.split != split.fingerprint(dataset):
            raise ConfigError(
                f"{entry.folder} was fitted on other data or under another split, and may have seen what is asked here;"
                " fit it again under this one"
            )


def _read_text(
    dataset: Dataset, entries: Sequence[Entry], settings: Tables, progress: Progress | None
) -> tuple[ItemText | None, float]:
    """Have the encoder read the catalogue once for all models, and for the measures of text space."""
    began = time.monotonic()
    config = RunConfig.resolve("weave", dataset, settings)
    text, _, _, _ = read_catalogue(dataset, config, progress)
    return text, time.monotonic() - began


def _run(
    judge: Judge,
    entry: Entry,
    settings: Tables,
    seeds: int,
    cutoffs: Sequence[int],
    progress: Progress | None,
) -> tuple[ModelResult, dict[str, np.ndarray], Rankings]:
    """Fit one line of the table as often as needed.

    Returns:
        Its result, each metric's value for every case averaged over seeds, and the first seed's lists.
    """
    runs: list[tuple[Recommender, Evaluation, Rankings]] = []
    used = _seeds(entry, settings, seeds)
    fit_seconds = []
    for seed in used:
        began = time.monotonic()
        recommender = _recommender(judge.dataset, entry, settings, seed, progress)
        fit_seconds.append(recommender.run.seconds["train"])
        began = time.monotonic()
        rankings = recommender.rank_cases(judge.cases, max(cutoffs))
        evaluation = judge.evaluate(
            entry.label,
            rankings,
            cutoffs,
            include_seen=recommender.config.include_seen,
            seconds=time.monotonic() - began,
        )
        runs.append((recommender, evaluation, rankings))
    recommender, evaluation, rankings = runs[0]
    values = {name: np.mean([e.values[name] for _, e, _ in runs], axis=0) for name in evaluation.values}
    findings = audit_model(judge.dataset, recommender.config, recommender.text)
    return (
        ModelResult(
            label=entry.label,
            model=recommender.config.model_name,
            settings=recommender.config.to_toml(),
            seeds=used,
            metrics=with_intervals(values),
            spread={n: float(np.std([e.metrics[n].mean for _, e, _ in runs], ddof=1)) for n in evaluation.metrics}
            if len(runs) > 1
            else {},
            catalogue={n: float(np.mean([e.catalogue[n] for _, e, _ in runs])) for n in evaluation.catalogue},
            slices=judge.sliced(values),
            fit_seconds=round(float(np.mean(fit_seconds)), 3),
            rank_seconds=round(float(np.mean([e.seconds for _, e, _ in runs])), 3),
            curve=recommender.run.curve,
            findings=findings,
        ),
        values,
        rankings,
    )


def _seeds(entry: Entry, settings: Tables, seeds: int) -> list[int]:
    """Return what a line of the table is fitted with: one seed where there is no chance, or where it brings its own."""
    first = int(settings.get("training", {}).get("seed", 0))
    own = entry.settings.get("model" if entry.model in SEEDED else "training", {}).get("seed")
    if own is not None:
        return [own]
    counts_on_chance = entry.model in SEEDED or not issubclass(MODELS.get(entry.model, CountedModel), CountedModel)
    return list(range(first, first + seeds)) if counts_on_chance and entry.folder is None else [first]


def _recommender(dataset: Dataset, entry: Entry, settings: Tables, seed: int, progress: Progress | None) -> Recommender:
    if entry.folder is not None:
        return Recommender.load(entry.folder)
    tables = {table: dict(values) for table, values in settings.items()}
    tables.setdefault("training", {})["seed"] = seed
    if entry.model in SEEDED:
        tables["model"] = {SEEDED[entry.model]: seed}
    for table, values in entry.settings.items():
        tables.setdefault(table, {}).update(values)
    recommender = Recommender.fit(dataset, entry.model, settings=tables, progress=progress)
    if recommender.run.stopped == "interrupted":
        raise KeyboardInterrupt  # half a training is no line of a table
    return recommender


def _pairs(labels: Sequence[str], values: Mapping[str, np.ndarray]) -> list[Pair]:
    """Test every two models, the better one first."""
    names = [(first, second) for place, first in enumerate(labels) for second in labels[place + 1 :]]
    differences = [paired_difference(values[first], values[second]) for first, second in names]
    adjusted = holm([difference.p_value for difference in differences])
    return [Pair(*both, d, float(p)) for both, d, p in zip(names, differences, adjusted, strict=True)]


def _windows(dataset: Dataset, config: SplitConfig, windows: int) -> list[SplitConfig]:
    """Return the splits of the stretches of time before the last one, each as long as it."""
    times = np.sort(dataset.timestamp)
    edges = [int(times[round((1 - config.test_fraction * back) * len(times))]) for back in range(windows, 0, -1)]
    return [replace(config, split_time=begin, test_until=until) for begin, until in itertools.pairwise(edges)]


def _backtest(
    dataset: Dataset,
    entries: Sequence[Entry],
    settings: Tables,
    config: SplitConfig,
    cutoffs: Sequence[int],
    windows: int,
    main: str,
    results: Sequence[ModelResult],
    progress: Progress | None,
) -> tuple[list[Window], list[Finding]]:
    """Repeat the table for earlier stretches of time, with one seed; tell which models failed in which."""
    if windows == 1:
        return [], []
    failed = {result.label for result in results if result.error is not None}
    going = [entry for entry in entries if entry.label not in failed and entry.folder is None]
    found, failures = [], []
    for there in _windows(dataset, config, windows):
        split = split_dataset(dataset, there)
        assert there.split_time is not None
        assert there.test_until is not None
        counts_I = TrainingData(dataset, split.full).item_counts()
        judge = Judge(dataset, there, counts_I, None)
        stretch = {"split_time": there.split_time, "test_until": there.test_until}
        moved = {**settings, "split": {**settings.get("split", {}), **stretch}}
        ndcg = {}
        for entry in going:
            try:
                result, _, _ = _run(judge, entry, moved, 1, cutoffs, progress)
            except Exception as error:
                what = f"{entry.label} failed in the window from {there.split_time} on: {_sentence(error)}"
                failures.append(Finding(False, what))
            else:
                ndcg[entry.label] = result.metrics[main].mean
        found.append(Window(there.split_time, there.test_until, len(split.test), ndcg))
    last = {result.label: result.metrics[main].mean for result in results if result.error is None}
    split = split_dataset(dataset, config)
    assert split.split_time is not None
    return [*found, Window(split.split_time, int(dataset.timestamp.max()) + 1, len(split.test), last)], failures
