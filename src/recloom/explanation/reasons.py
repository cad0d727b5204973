"""Numbers about the score of an item -> the few reasons worth telling, as data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from recloom.explanation.explainer import Facts
from recloom.models import NCF, Model, Popular, PopularRecent, RandomOrder

Kind = Literal[
    "history",
    "id",
    "text",
    "modality",
    "id and text",
    "popularity",
    "any item",
    "context",
    "word",
    "rules",
    "popular",
    "new",
]
MOST_NAMED = 3
"""Interactions that a recommendation names."""
NOTHING = 1e-6
"""A contribution below this is rounding."""
LEAST_SHARE = 0.1
"""An interaction that moved the score by less than this share of what the strongest one did is not worth naming."""


@dataclass(frozen=True)
class Reason:
    """One thing that an item's score comes from."""

    kind: Kind
    """`history`: an interaction; `id`, `text`, `modality` (a picture, a vector of the user's own), `popularity` and
    `any item`: what the score is the sum of; `context`: a part of the request; `word`: a word of the item's text;
    `rules`: a boost or a pin; `popular`: the list is the popular one; `new`: nobody had the item, its text alone placed
    it."""
    contribution: float | None = None
    """How much lower the score would be without it. None where that is no number: the only interaction, a pin."""
    item_id: str | None = None
    """Of an interaction."""
    title: str | None = None
    """Of that item; its id where the catalogue has no title."""
    behavior: str | None = None
    """What the interaction was."""
    name: str | None = None
    """The column of the context or of the modality, the word, or `pinned` and `boost`."""

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, for JSON."""
        number = None if self.contribution is None else float(f"{self.contribution:.6g}")
        rest = {name: getattr(self, name) for name in ("item_id", "title", "behavior", "name")}
        return {"kind": self.kind, "contribution": number, **{n: v for n, v in rest.items() if v is not None}}


@dataclass(frozen=True)
class Explanation:
    """All that is known of why one item has the score it has."""

    item_id: str
    title: str
    score: float | None
    """None where no model gave one."""
    reasons: Sequence[Reason]
    sentence: str
    notes: Sequence[str] = field(default_factory=tuple)
    """What was not looked at, or cannot be said."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "item_id": self.item_id,
            "title": self.title,
            "score": self.score,
            "because": self.sentence,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Names:
    """How people call what a model knows by number."""

    item_id_of: Callable[[int], str]
    title_of: Callable[[int], str]
    behavior_of: Callable[[int], str]


def reasons_of(facts: Facts, names: Names, *, is_new: bool, most: int | None = MOST_NAMED) -> list[Reason]:
    """Choose what to tell of the score of an item.

    Args:
        facts: What it comes from.
        names: How to call things.
        is_new: Whether nobody had the item.
        most: Most interactions to tell, the strongest of those that raised the score; None tells every one that was
            taken away, also those that lowered it or did nothing.
    """
    reasons = [Reason("new")] if is_new else []
    told = sorted(facts.history, key=lambda removed: -_strength(removed.contribution))
    if most is not None:
        strongest = max((_strength(removed.contribution) for removed in told), default=0.0)
        told = [
            r
            for r in told
            if _strength(r.contribution) > max(NOTHING, LEAST_SHARE * strongest) or r.contribution is None
        ][:most]
    for removed in told:
        item_id = names.item_id_of(removed.item_index)
        title, behavior = names.title_of(removed.item_index) or item_id, names.behavior_of(removed.behavior_index)
        reasons.append(Reason("history", removed.contribution, item_id, title, behavior))
    moved = [(name, change) for name, change in facts.context.items() if abs(change) > NOTHING]
    reasons += [Reason("context", change, name=name) for name, change in moved]
    for name, part in facts.parts.items():
        reasons.append(Reason(_PARTS[name], part) if name in _PARTS else Reason("modality", part, name=name))
    return reasons


_PARTS: Mapping[str, Kind] = {
    "id": "id",
    "text": "text",
    "id and text": "id and text",
    "popularity": "popularity",
    "any item": "any item",
}


def _strength(contribution: float | None) -> float:
    return float("inf") if contribution is None else contribution


def gives_everybody_the_same(model: Model) -> bool:
    """Whether a model is the popular list, whose only reason is popularity."""
    return isinstance(model, Popular | PopularRecent)


def has_reasons(model: Model) -> bool:
    """Whether what somebody did can be a reason for what a model recommends."""
    return not (gives_everybody_the_same(model) or isinstance(model, NCF | RandomOrder))


def notes_on(model: Model, facts: Facts) -> list[str]:
    """Say what an explanation does not tell, and why not."""
    if gives_everybody_the_same(model):
        return [f"{model.name} gives everybody the same scores, so nothing that somebody did is a reason"]
    if isinstance(model, NCF):
        return [
            "ncf knows people by who they are and does not read their history, so no interaction of it is a reason;"
            " most other models read it"
        ]
    if isinstance(model, RandomOrder):
        return ["random draws lots, so there is no reason for anything; fit another model"]
    notes = []
    if len(facts.history) < facts.num_read:
        notes.append(
            f"of the {facts.num_read} interactions that the model reads, the newest {len(facts.history)} were taken"
            " away, one at a time; older ones were not tried"
        )
    if not facts.parts:
        notes.append(f"{model.name} does not keep id, text and popularity apart, so their shares cannot be told")
    if "id and text" in facts.parts:
        notes.append("the item vectors are stored in codes, in which id and text cannot be told apart")
    return notes
