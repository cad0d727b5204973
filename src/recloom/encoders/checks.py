"""Embeddings are checked, never assumed, to belong to their texts."""

from collections.abc import Sequence

import numpy as np

from recloom.encoders.encoder import Encoder
from recloom.errors import EncodingError

SAME_VECTOR_SAMPLE = 10_000
"""Distinct texts looked at for equal vectors: enough to find what is common."""
SAME_VECTOR_SHARE = 0.5
SMALLEST_SAMPLE = 20
"""Among fewer distinct texts than this, equal vectors may be chance."""
COMPARED_ROWS = 1000
OWN_DISTANCE_SHARE = 0.5
"""Of the usual distance between texts: a text encoded again came within 0.2 of it, with 8-bit weights too."""
ROUNDING = 1e-4


def check_embeddings(vectors: np.ndarray, texts: Sequence[str]) -> None:
    """Check that vectors can be those of the texts, row by row.

    Raises:
        EncodingError: Counts disagree; a value is not finite; a text without a word has a vector or one
            with words has none; or most texts share their vector with a different text.
    """
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise EncodingError(
            f"the encoder gave an array of shape {vectors.shape} for {len(texts)} texts; row i has to be text i"
        )
    is_finite = np.isfinite(vectors).all(axis=1)
    if not is_finite.all():
        raise EncodingError(
            f"{(~is_finite).sum()} of {len(texts)} vectors hold values that are not finite numbers,"
            f" {_first(~is_finite, texts)}"
        )
    is_zero = ~vectors.any(axis=1)
    has_words = np.array([bool(text.strip()) for text in texts], dtype=bool)
    if (is_zero & has_words).any():
        wrong = is_zero & has_words
        raise EncodingError(f"{wrong.sum()} of {len(texts)} vectors are all zero, {_first(wrong, texts)}")
    if (~is_zero & ~has_words).any():
        raise EncodingError(
            f"row {int(np.argmax(~is_zero & ~has_words))} has a vector but an empty text: rows and texts are shifted"
        )
    _check_distinct(vectors, texts)


def check_alignment(encoder: Encoder, vectors: np.ndarray, texts: Sequence[str], sample_size: int = 3) -> None:
    """Encode a few texts again, drawn at random, and compare each with its row and with other rows.

    How near is near depends on the encoder, whose vectors may all lie close together, and 8-bit weights give
    a text a slightly different vector in another batch; so the distance to the text's own row is measured
    against the usual distance to the others.

    Args:
        encoder: What gave the vectors.
        vectors: One row for each text, shape (N, E).
        texts: At least two different texts.
        sample_size: How many of them are encoded again.

    Raises:
        EncodingError: A row is not the vector of its text.
    """
    random = np.random.default_rng(len(texts))
    rows = random.choice(len(texts), min(sample_size, len(texts)), replace=False)
    others = random.choice(len(texts), min(COMPARED_ROWS, len(texts)), replace=False)
    for row, again in zip(rows.tolist(), encoder.encode([texts[row] for row in rows]), strict=True):
        to_own = float(np.linalg.norm(vectors[row] - again))
        usual = float(np.median(np.linalg.norm(vectors[others[others != row]] - again, axis=1)))
        if to_own > OWN_DISTANCE_SHARE * usual + ROUNDING:
            raise EncodingError(
                f"row {row} is not the vector of its text {_short(texts[row])}: encoded again, it lies {to_own:.3f}"
                f" from its row and usually {usual:.3f} from others; rows are out of order, or the cache is another"
                " encoder's"
            )


def _check_distinct(vectors: np.ndarray, texts: Sequence[str]) -> None:
    row_by_text = {text: row for row, text in enumerate(texts) if text.strip()}
    rows = list(row_by_text.values())[:SAME_VECTOR_SAMPLE]
    if len(rows) < SMALLEST_SAMPLE:
        return
    rounded = np.ascontiguousarray(vectors[rows].round(4) + 0.0)  # + 0.0 turns -0.0 into 0.0
    as_bytes = rounded.view(np.dtype((np.void, rounded.itemsize * rounded.shape[1]))).ravel()
    _, group, sizes = np.unique(as_bytes, return_inverse=True, return_counts=True)
    shares = sizes[group] > 1
    if shares.mean() > SAME_VECTOR_SHARE:
        raise EncodingError(
            f"{shares.sum()} of {len(rows)} different texts have the same vector as another one,"
            f" {_first(shares, [texts[row] for row in rows])}; the encoder cannot tell them apart:"
            " choose one that knows their language, such as 'multilingual'"
        )


def _first(is_wrong: np.ndarray, texts: Sequence[str]) -> str:
    row = int(np.argmax(is_wrong))
    return f"the first in row {row} for {_short(texts[row])}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
