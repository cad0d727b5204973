"""A history, a ranked list and a language model -> the list in the order that the model answers to a prompt."""

import re
from collections.abc import Sequence

from recloom.errors import WritingError
from recloom.explanation.writers import Writer

MOST_PAST = 10
"""Newest interactions of the history that the prompt tells."""
TOKENS_FOR_ONE = 4
"""Tokens of the answer for each candidate: a number and what stands between two."""
_INSTRUCTION = (
    "You order candidates for a person. Answer with their numbers alone, the best first, separated by commas."
)


def reranked(
    writer: Writer, past: Sequence[str], candidates: Sequence[str], *, seconds: float
) -> tuple[list[int], str]:
    """Ask a language model for the order of some candidates.

    Args:
        writer: The language model.
        past: Titles of what the person had, oldest first.
        candidates: Titles, as they are ranked now.
        seconds: The most that it may take.

    Returns:
        The places of the candidates in their new order, and why it is the old one, "" where it is not. Candidates that
        the answer leaves out follow in their old order.
    """
    plain = list(range(len(candidates)))
    chosen = "\n".join(f"{number}. {title}" for number, title in enumerate(candidates, start=1))
    request = f"The person chose, oldest first: {'; '.join(past[-MOST_PAST:])}.\nCandidates:\n{chosen}\nThe order:"
    try:
        answer = writer.write(_INSTRUCTION, request, most_tokens=TOKENS_FOR_ONE * len(candidates), seconds=seconds)
    except WritingError as error:
        return plain, str(error)
    numbers = [int(found) - 1 for found in re.findall(r"\d+", answer)]
    named = list(dict.fromkeys(number for number in numbers if number in plain))
    if not named or re.search(r"[^\W\d_]", answer):
        return plain, f"{writer.name} answered {answer[:60]!r}, which is no list of numbers"
    return named + [place for place in plain if place not in named], ""
