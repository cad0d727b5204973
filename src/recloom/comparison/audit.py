"""Whether a model, or the catalogue it reads, knows what it is going to be asked.

Shapes: N interactions, I catalogue (with the padding row).
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from scipy import stats
from threadpoolctl import threadpool_limits

from recloom.dataset import Cases, Dataset, Split, SplitConfig, expand_ranges, split_dataset
from recloom.events import VECTOR_PREFIX
from recloom.fitting import fit_model
from recloom.models import ItemText, Model, TrainingData
from recloom.run_config import RunConfig

USERS = 300
"""Users on whom a model is fitted twice, to see whether it looks ahead."""
NOTICEABLE = 0.3
"""Rank correlation from which a column is suspected of having been written later."""
STANDARD_ERRORS = 3.0
"""Distance from 0 that chance hardly ever reaches: a small catalogue has some correlation in any column."""
FEW_ITEMS = 30


@dataclass(frozen=True)
class Finding:
    """Something that may make a result too good."""

    is_leak: bool
    """Whether it certainly is one; a suspicion otherwise."""
    what: str
    """What was found and what to do, in one sentence."""


def audit_split(dataset: Dataset, split: Split) -> list[Finding]:
    """Check that nothing asked is learned from, that validation asks nothing of the test, that time only runs on."""
    findings = []
    asked = {"validation": split.validation, "test": split.test}
    learned = {"training": split.train.positions(), "the final training": split.full.positions()}
    for part, questions in (("training", "validation"), ("training", "test"), ("the final training", "test")):
        if shared := int(np.isin(asked[questions].target, learned[part]).sum()):
            findings.append(Finding(True, f"{shared:,} answers of the {questions} are in {part}; part them again"))
    if shared := int(np.isin(split.validation.target, split.test.target).sum()):
        findings.append(Finding(True, f"validation asks {shared:,} questions of the test, so choices were made by it"))
    for part, cases in asked.items():
        if shared := int(_sees_answers(cases).sum()):
            what = f"{shared:,} {part} histories reach beyond the question that they come before"
            findings.append(Finding(True, what))
    if split.split_time is not None:
        late = int((dataset.timestamp[learned["the final training"]] >= split.split_time).sum())
        if late:
            findings.append(Finding(True, f"{late:,} interactions learned from are not before the split time"))
    return findings


def _sees_answers(cases: Cases) -> np.ndarray:
    return cases.history_end > cases.target


def audit_model(
    dataset: Dataset, config: RunConfig, text: ItemText | None, *, users: int = USERS, seed: int = 0
) -> list[Finding]:
    """Fit the model twice on a few users, once with what the test holds made up.

    A model that knows nothing of the test comes out the same to the last bit. This finds whatever is learned, counted,
    normalised or tuned on the test period, in any model.

    Args:
        dataset: What the comparison runs on.
        config: The model and its settings; it is trained for one epoch.
        text: What the encoder made of the catalogue.
        users: How many users to fit it on.
        seed: Decides who they are.
    """
    active = np.flatnonzero(np.diff(dataset.user_offsets))
    chosen = np.random.default_rng(seed).choice(active, min(users, len(active)), replace=False)
    seen = dataset.of_users(chosen)
    split = split_dataset(seen, config.split)
    hidden = np.setdiff1d(expand_ranges(split.full.end, seen.user_offsets[1:]), split.validation.target)
    if len(hidden) == 0 or split.full.num_interactions == 0:
        return []
    training = replace(config.training, epochs=1, teacher=None, budget=None, device="cpu")
    quick = replace(config, training=training)
    # Threads share sums differently from run to run, which moves the last bits.
    with threadpool_limits(1):
        fitted = [_fitted(some, split, quick, text).state_dict() for some in (seen, _made_up(seen, hidden))]
    differing = [name for name, values in fitted[0].items() if not _same(values, fitted[1].get(name))]
    if not differing:
        return []
    return [
        Finding(
            True,
            f"{config.model_name} comes out differently when what the test holds is made up (in {differing[0]}), so it"
            " learns from it; its figures say nothing",
        )
    ]


def _made_up(dataset: Dataset, hidden: np.ndarray, seed: int = 0) -> Dataset:
    """Return the dataset with everything about some interactions made up: what was done, how, and when.

    Times become later and keep their order, so that what is known still comes before.
    """
    blind = dataset.blinded(hidden, seed)
    # `blinded` deals the values out anew, which a mean or a count over the whole log would not notice.
    source = np.arange(dataset.num_interactions)
    source[hidden] = np.random.default_rng(seed).integers(dataset.num_interactions, size=len(hidden))
    blind.behavior = replace(dataset.behavior, values=dataset.behavior.values[source])
    blind.context = {n: replace(column, values=column.values[source]) for n, column in dataset.context.items()}
    blind.timestamp = dataset.timestamp.copy()
    blind.timestamp[hidden] += 1 + dataset.timestamp[hidden] - dataset.timestamp.min()
    return blind


def _fitted(dataset: Dataset, split: Split, config: RunConfig, text: ItemText | None) -> Model:
    result, model, _ = fit_model(dataset, split, config, text)
    if result is not None and result.stopped == "interrupted":
        raise KeyboardInterrupt
    return model


def _same(first: torch.Tensor, second: torch.Tensor | None) -> bool:
    return second is not None and first.shape == second.shape and bool(torch.equal(first, second))


def audit_catalogue(dataset: Dataset, config: SplitConfig) -> list[Finding]:
    """Suspect columns of the catalogue that seem to have been written after the test began.

    Whether a value is there, how long it is, and how large, is held against how often items are taken in the test
    beyond what training tells; times after the split are named as they are.
    """
    split = split_dataset(dataset, config)
    learned_I = TrainingData(dataset, split.full).item_counts()[1:]
    asked_I = np.bincount(dataset.item_index, minlength=len(dataset.items) + 1)[1:] - learned_I
    findings = []
    for name, kind in dataset.item_table.schema.items():
        if name == "item_id" or name.startswith(VECTOR_PREFIX):
            continue
        column = dataset.item_table[name]
        if split.split_time is not None and kind.is_numeric():
            numbers = column.cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
            # Numbers of that size are UTC seconds of our time, or are taken for such.
            looks_like_time = len(numbers) > 0 and bool(((numbers > 5e8) & (numbers < 4e9)).all())
            after = int((numbers >= split.split_time).sum())
            if looks_like_time and after:
                findings.append(Finding(False, f"the catalogue's {name} lies after the split time for {after:,} items"))
        for what, values_I in _looks(column).items():
            strength = _beyond(values_I, asked_I, learned_I)
            if strength > NOTICEABLE:
                findings.append(
                    Finding(
                        False,
                        f"{what} of the catalogue's {name} goes with how often items are taken in the test beyond what"
                        f" training tells (rank correlation {strength:.2f}); if it was written later, leave it out",
                    )
                )
    return findings


def _looks(column: pl.Series) -> dict[str, np.ndarray]:
    """Return what a column shows of each item that could be a trace of later behaviour, each of shape (I - 1,)."""
    if column.dtype.is_numeric():
        numbers = column.cast(pl.Float64).fill_nan(None)
        return {
            "the value": numbers.fill_null(numbers.min() or 0).to_numpy(),
            "the presence": numbers.is_not_null().to_numpy().astype(float),
        }
    text = column.cast(pl.String).fill_null("")
    return {"the length": text.str.len_chars().to_numpy().astype(float)}


def _beyond(values_I: np.ndarray, asked_I: np.ndarray, learned_I: np.ndarray) -> float:
    """Return the rank correlation of values and later takings, training takings being held fixed (partial Spearman).

    0 where so few items could have it by chance.
    """
    is_taken = (asked_I + learned_I) > 0
    if is_taken.sum() < FEW_ITEMS or np.ptp(values_I[is_taken]) == 0 or np.ptp(asked_I[is_taken]) == 0:
        return 0.0
    ranks = np.stack([stats.rankdata(v[is_taken]) for v in (values_I, asked_I, learned_I)])
    if np.ptp(learned_I[is_taken]) == 0:
        strength = float(np.corrcoef(ranks[:2])[0, 1])
    else:
        with_value, with_asked = np.corrcoef(ranks)[2, 0], np.corrcoef(ranks)[2, 1]
        rest = np.sqrt((1 - with_value**2) * (1 - with_asked**2))
        strength = float((np.corrcoef(ranks)[0, 1] - with_value * with_asked) / rest) if rest > 1e-9 else 0.0
    return strength if strength > STANDARD_ERRORS / np.sqrt(is_taken.sum() - 3) else 0.0
