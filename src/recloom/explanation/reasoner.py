"""A ranked list and the history it was made for -> an explanation of each of its items."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from recloom.dataset import Histories
from recloom.explanation.explainer import Explainer
from recloom.explanation.reasons import (
    MOST_NAMED,
    Explanation,
    Names,
    Reason,
    gives_everybody_the_same,
    has_reasons,
    notes_on,
    reasons_of,
)
from recloom.explanation.sentences import Language, sentence_of

MOST_TRIED = 8
"""Interactions that are taken away for a recommendation, the newest; each is one more history to compute."""


class Reasoner:
    """What explains the lists of one model, in the names of one catalogue."""

    def __init__(self, explainer: Explainer, names: Names, is_new: Callable[[int], bool]) -> None:
        """Begin.

        Args:
            explainer: Asks the model.
            names: How people call what it knows by number.
            is_new: Whether nobody had an item.
        """
        self.explainer, self.names = explainer, names
        self._is_new = is_new

    def explain(
        self,
        history: Histories | None,
        rows: Sequence[int],
        language: Language,
        *,
        most_tried: int = MOST_TRIED,
        most_named: int | None = MOST_NAMED,
    ) -> list[Explanation]:
        """Explain some items.

        Args:
            history: A single one, with one interaction more than the model reads where there are so many. None: it
                was empty, or the model had no answer to it, so that the items are popular ones.
            rows: The items.
            language: Of the sentences.
            most_tried: Most interactions to take away.
            most_named: Most interactions to tell; None tells all that were taken away.
        """
        model = self.explainer.model
        if history is None or gives_everybody_the_same(model):
            notes = ["the list is the popular one, so popularity is the only reason"]
            return [self._explanation(row, None, [Reason("popular")], language, notes) for row in rows]
        told = []
        for row, facts in zip(rows, self.explainer.explain(history, rows, most_tried), strict=True):
            reasons = []
            if has_reasons(model):
                reasons = reasons_of(facts, self.names, is_new=self._is_new(row), most=most_named)
            told.append(self._explanation(row, facts.score, reasons, language, notes_on(model, facts)))
        return told

    def _explanation(
        self, row: int, score: float | None, reasons: Sequence[Reason], language: Language, notes: Sequence[str]
    ) -> Explanation:
        item_id = self.names.item_id_of(row)
        sentence = sentence_of(_named(reasons), language)
        return Explanation(item_id, self.names.title_of(row) or item_id, score, reasons, sentence, notes)


def with_reasons(explanation: Explanation, more: Sequence[Reason], language: Language) -> Explanation:
    """Return an explanation that tells further reasons, also in its sentence."""
    if not more:
        return explanation
    reasons = [*explanation.reasons, *more]
    return replace(explanation, reasons=reasons, sentence=sentence_of(_named(reasons), language))


def _named(reasons: Sequence[Reason]) -> list[Reason]:
    """Leave to a sentence the few interactions that a list would name."""
    past = [reason for reason in reasons if reason.kind == "history"][:MOST_NAMED]
    return past + [reason for reason in reasons if reason.kind != "history"]
