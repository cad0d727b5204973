"""The one way to get vectors: each text once, what is cached from the cache, the result checked."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from recloom.encoders.cache import EmbeddingCache
from recloom.encoders.checks import check_alignment, check_embeddings
from recloom.encoders.encoder import Encoder, Progress

TEXTS_BETWEEN_LOOKS = 4096
SECONDS_BETWEEN_WRITES = 30.0
"""How much encoding a kill may cost."""


Blocks = Callable[[Sequence[Sequence[str]]], Iterable[np.ndarray]]
"""Turns blocks of texts into their vectors, in order: what an encoder does, perhaps on other machines."""


def encode_texts(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    elsewhere: Blocks | None = None,
) -> np.ndarray:
    """Turn texts into vectors, each different text once, encoding only what the cache does not hold.

    Args:
        encoder: What reads the texts.
        texts: Any texts; one without a word gets an all-zero row and never reaches the encoder.
        cache: An HDF5 file, made where there is none and shared by encoders; None keeps nothing.
        progress: Told now and then how many of the different texts are encoded.
        elsewhere: Does the same as `encoder` for many blocks. None: they are encoded here.

    Returns:
        float32 vectors of shape (N, E); row i is text i.

    Raises:
        EncodingError: The vectors cannot be those of the texts.
    """
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    vectors_NE = np.zeros((len(distinct) + 1, encoder.embedding_dim), dtype=np.float32)  # the last is for no text
    kept = EmbeddingCache(cache, encoder.fingerprint, encoder.embedding_dim) if cache else None
    is_found = np.zeros(len(distinct), dtype=bool)
    if kept:
        is_found, vectors_NE[:-1][is_found] = kept.find(distinct)
    missing = np.flatnonzero(~is_found)
    vectors_NE[missing] = _encode_new(encoder, [distinct[row] for row in missing], kept, progress, elsewhere)
    check_embeddings(vectors_NE[:-1], distinct)
    if len(missing) > 1:
        check_alignment(encoder, vectors_NE[:-1], distinct)
    row_by_text = {text: row for row, text in enumerate(distinct)}
    return vectors_NE[[row_by_text.get(text, len(distinct)) for text in texts]]


def _encode_new(
    encoder: Encoder,
    texts: Sequence[str],
    cache: EmbeddingCache | None,
    progress: Progress | None,
    elsewhere: Blocks | None,
) -> np.ndarray:
    """Encode texts block by block, writing to the cache now and then and at the end."""
    vectors_NE = np.zeros((len(texts), encoder.embedding_dim), dtype=np.float32)
    written, last_write, end = 0, time.monotonic(), 0
    blocks = [texts[begin : begin + TEXTS_BETWEEN_LOOKS] for begin in range(0, len(texts), TEXTS_BETWEEN_LOOKS)]
    encoded = elsewhere(blocks) if elsewhere else _encode_here(encoder, blocks, len(texts), progress)
    for block, block_NE in zip(blocks, encoded, strict=True):
        check_embeddings(block_NE, block)  # before it is kept
        begin, end = end, end + len(block)
        vectors_NE[begin:end] = block_NE
        if cache and (end == len(texts) or time.monotonic() - last_write > SECONDS_BETWEEN_WRITES):
            cache.add(texts[written:end], vectors_NE[written:end])
            written, last_write = end, time.monotonic()
        if progress and elsewhere:  # what is encoded here tells of itself
            progress(end, len(texts))
    return vectors_NE


def _encode_here(
    encoder: Encoder, blocks: Sequence[Sequence[str]], total: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    begin = 0
    for block in blocks:
        report = (lambda done, _, begin=begin: progress(begin + done, total)) if progress else None
        yield encoder.encode(block, progress=report)
        begin += len(block)
