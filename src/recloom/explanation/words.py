"""The text of an item, read again without each of its words -> what each word does for the score.

Shapes: V variants of a text, N items, E width of text embeddings.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch

from recloom.dataset import Histories
from recloom.explanation.explainer import Explainer
from recloom.explanation.reasons import Reason
from recloom.explanation.removal import variants

MOST_WORDS = 60
"""Words of a text that are tried, the first ones: each of them has the language model read the text once more."""
# A word; of scripts without spaces, two letters that stand together.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]{1,2}|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:['’-][^\W_\u3040-\u30ff\u3400-\u9fff]+)*"
)


def words_of(text: str) -> list[str]:
    """Return the different words of a text, in the order in which they come.

    >>> words_of("Toy Story (1995). genres: Animation")
    ['Toy', 'Story', '1995', 'genres', 'Animation']
    """
    return list(dict.fromkeys(_WORD.findall(text)))


def without_word(text: str, word: str) -> str:
    """Return a text without any occurrence of a word."""
    return " ".join(_WORD.sub(lambda found: "" if found[0] == word else found[0], text).split())


def word_reasons(
    explainer: Explainer,
    history: Histories,
    row: int,
    text: str,
    read: Callable[[Sequence[str]], np.ndarray],
) -> list[Reason]:
    """Say how much lower the score of an item is when its text lacks a word, the strongest first.

    Args:
        explainer: Its model is changed while this works, and is as it was afterwards.
        history: A single one that the model can answer.
        row: The item.
        text: What the catalogue says of it.
        read: The encoder that the model was fitted with.
    """
    words = words_of(text)[:MOST_WORDS]
    if not words:
        return []
    embedding_VE = torch.from_numpy(read([text, *(without_word(text, word) for word in words)]))
    row_1 = torch.tensor([row])
    read_part = variants(history, np.ones((1, int(history.length_B[0])), dtype=bool), explainer.model.max_length)

    def score(embedding_E: torch.Tensor) -> float:
        explainer.model.read_items(row_1, embedding_E[None])
        return float(explainer.scores(read_part, row_1)[0, 0])

    with torch.no_grad():
        try:
            changed = [score(embedding_E) for embedding_E in embedding_VE[1:]]
        finally:
            as_it_is = score(embedding_VE[0])
    reasons = [Reason("word", as_it_is - after, name=word) for word, after in zip(words, changed, strict=True)]
    return sorted(reasons, key=lambda reason: -abs(reason.contribution or 0.0))
