"""An encoder without a language model: words and pieces of words, hashed into a vector."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np

_WORD = re.compile(r"\w+")
_SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
"""Scripts that write words without spaces between them: there, characters and pairs of them do for words."""


class HashingEncoder:
    """Hash each word and its character n-grams (3 to 5) into one coordinate with a sign, then sum and normalise.

    It needs no files, works in any language and always gives the same vectors; texts are alike when they share
    words or pieces of words. Rare features should weigh more, as in tf-idf, but a document count would make
    vectors depend on the catalogue: the length of a word stands in for its rarity, and a repeated feature
    counts by its logarithm.

    Source of the signed hash: Weinberger et al. (2009), https://arxiv.org/abs/0902.2206
    """

    def __init__(self, embedding_dim: int = 512) -> None:
        self.embedding_dim = embedding_dim
        self.fingerprint = f"hashing:1 embedding_dim={embedding_dim}"

    def encode(self, texts: Sequence[str], *, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Return unit vectors of shape (N, E); all zero only for a text without a character."""
        vectors_NE = np.zeros((len(texts), self.embedding_dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word, count in Counter(_WORD.findall(text.lower()) or text.split()).items():
                positions, weights = _hashed(word, self.embedding_dim)
                np.add.at(vectors_NE[row], positions, weights * (1 + math.log(count)))
            if progress and (row + 1) % 1000 == 0:
                progress(row + 1, len(texts))
        length_N1 = np.linalg.norm(vectors_NE, axis=1, keepdims=True)
        vectors_NE /= np.maximum(length_N1, 1e-12)
        return vectors_NE


@lru_cache(maxsize=100_000)
def _hashed(word: str, embedding_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the features of a word go, and with what weight."""
    features, weights = [word], [math.log1p(len(word))]
    if _SPACELESS.search(word):
        pieces = [*word, *(word[i : i + 2] for i in range(len(word) - 1))]
    else:
        marked = f"<{word}>"  # so that a beginning is not taken for a middle
        pieces = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    features += pieces
    weights += [weights[0] / math.sqrt(len(pieces) or 1)] * len(pieces)
    hashes = [int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little") for feature in features]
    signs = np.array([1.0 if value >> 63 else -1.0 for value in hashes])
    positions = np.array([value % embedding_dim for value in hashes])
    return positions, (signs * np.array(weights)).astype(np.float32)
