"""Texts -> vectors, by a pretrained language model of the BERT or GPT family in a folder."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np

from recloom.encoders.encoder import Progress
from recloom.encoders.pipeline import Pipeline, digest_of_model
from recloom.errors import ArtifactError

TOKENS_PER_BATCH = 1024
"""Tokens read at once: their activations about fit the processor's cache."""

ReadTokens = Callable[[np.ndarray], np.ndarray]
"""Token ids of shape (B, L), without padding -> vectors of shape (B, E)."""


class LanguageModelEncoder:
    """Read texts with a pretrained language model and pool its last hidden states.

    Texts are read in batches of one length, counted in tokens, so that nothing is padded or masked: no work
    is wasted, and a vector does not depend on the texts beside it. The model is loaded when the first text
    is read, so that a fully cached catalogue costs neither time nor memory for it.

    Args:
        folder: What `save_pretrained` wrote: config.json, weights, tokenizer.
        name: How the user calls it; a path counts by its last part, so that the folder may move.
        prompt: Put before every text; None takes the model's own.
        max_tokens: Longest text read, in tokens; the rest is cut off.
        int8: Read with 8-bit weights in ONNX Runtime, on the CPU. How the numbers between layers are rounded
            depends on the batch, so vectors vary a little with the texts beside them.
        device: Where torch runs the model.

    Raises:
        ArtifactError: The folder lacks a config, weights or tokenizer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        prompt: str | None = None,
        max_tokens: int = 128,
        int8: bool = False,
        device: str = "cpu",
    ) -> None:
        self.folder = folder
        self._lock = Lock()
        self._device = "cpu" if int8 else device
        self._int8 = int8
        self._pipeline = Pipeline.read(folder)
        self._digest = digest_of_model(folder)
        self._prompt = self._pipeline.prompt if prompt is None else prompt
        self._max_tokens = min(max_tokens, self._pipeline.max_tokens)
        self.embedding_dim = self._pipeline.embedding_dim
        self.fingerprint = (
            f"{Path(name).resolve().name} model={self._digest} pooling={self._pipeline.pooling}"
            f" normalize={self._pipeline.normalize} prompt={self._prompt!r} max_tokens={self._max_tokens}"
            f" precision={'int8' if int8 else 'fp32'}"
        )

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> np.ndarray:
        """Return float32 vectors of shape (N, E), normalised where the model's own pipeline says so."""
        vectors_NE = np.empty((len(texts), self.embedding_dim), dtype=np.float32)
        done = 0
        with self._lock:  # loading, and the number of threads, are not to be shared
            tokens = self.tokenize(texts)
            batches = list(_batches_of_one_length(tokens))
            token_batches = [np.array([tokens[row] for row in rows]) for rows in batches]
            for rows, vectors_BE in zip(batches, self._read_all(token_batches), strict=True):
                vectors_NE[rows] = vectors_BE
                done += len(rows)
                if progress:
                    progress(done, len(texts))
        return vectors_NE

    def release(self) -> None:
        """Let go of the model's weights; they are loaded again when a text is to be read."""
        self.__dict__.pop("_read", None)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, at least one."""
        if not texts:
            return []
        encoded = self._tokenizer(
            [self._prompt + text for text in texts],
            truncation=True,
            max_length=self._max_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        # A tokenizer that adds no tokens of its own may find nothing in a text of odd characters.
        nothing = [next(iter(self._tokenizer.all_special_ids), 0)]
        return [ids or nothing for ids in cast("list[list[int]]", encoded["input_ids"])]

    def _read_all(self, token_batches: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the vectors of each batch, in order, reading as many batches at once as torch has threads.

        Each batch stays on one thread. Threads that share a batch wait for each other after every layer, which
        costs a tenth on a quiet machine and becomes many times slower when another process holds a core.
        """
        import torch

        read, threads = self._read, torch.get_num_threads()
        if threads == 1 or len(token_batches) <= 1 or self._device != "cpu":
            yield from map(read, token_batches)
            return
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield from pool.map(read, token_batches)
        finally:
            torch.set_num_threads(threads)  # or threads started later would inherit the workers' setting

    @cached_property
    def _read(self) -> ReadTokens:
        if self._int8:
            from recloom.encoders.onnx_int8 import load_int8

            return load_int8(self.folder, self._pipeline, self._digest)
        from recloom.encoders.pooled_model import load_pooled_model, reader

        return reader(load_pooled_model(self.folder, self._pipeline), self._device)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # transformers raises whatever a damaged file leads to
            raise ArtifactError(
                f"the tokenizer in the encoder folder {self.folder} cannot be read ({error}); save it there again"
            ) from error


def _batches_of_one_length(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield rows of texts with equally many tokens; the longest first, so that memory peaks at the start."""
    rows_by_length: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        rows_by_length.setdefault(len(ids), []).append(row)
    for length in sorted(rows_by_length, reverse=True):
        rows = rows_by_length[length]
        size = max(1, TOKENS_PER_BATCH // length)
        for begin in range(0, len(rows), size):
            yield rows[begin : begin + size]
