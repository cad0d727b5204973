"""Blocks of texts -> their vectors, made by the machines of a cluster, on GPUs where there are some."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recloom.cluster.tasks import spread
from recloom.encoders import Blocks, Encoder
from recloom.fitting import encoder_of
from recloom.run_config import EncoderConfig


def encode_on_cluster(config: EncoderConfig, workers: int | None = None) -> Blocks:
    """Return what encodes as the encoder of a config does, for `read_catalogue` to give its blocks to.

    A block holds what one machine encodes together; which texts are
    different, what is cached already and what is written to the cache is decided where it is called.

    Args:
        config: The encoder; a folder has to be on a disk that all machines share.
        workers: How many load it. None: one for each GPU, or as many as there are CPUs for.
    """
    if Path(config.name).is_dir():
        config = replace(config, name=str(Path(config.name).absolute()))

    def encode(blocks: Sequence[Sequence[str]]) -> Iterator[np.ndarray]:
        import ray

        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        waiting: dict[int, np.ndarray] = {}
        following = 0
        for place, block_NE in spread(
            [list(block) for block in blocks],
            _encode,
            (config, "cuda" if has_gpu else "cpu"),
            loaded=encoder_of,
            workers=workers,
            gpus=1 if has_gpu else 0,
        ):
            waiting[place] = block_NE
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    return encode


def _encode(block: list[str], encoder: Encoder, config: EncoderConfig, device: str) -> np.ndarray:
    return encoder.encode(block)
