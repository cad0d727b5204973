"""What an encoder is."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number there are."""


class Encoder(Protocol):
    """Texts in, one vector for each out: row i is text i."""

    @property
    def fingerprint(self) -> str:
        """Everything that changes the vectors: weights, pooling, prompt, longest text, precision.

        It keys the cache, and is saved beside embeddings.
        """

    @property
    def embedding_dim(self) -> int:
        """Width E of the vectors."""

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 vectors of shape (N, E)."""
