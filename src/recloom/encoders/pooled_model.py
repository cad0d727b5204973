"""A language model with its pooling, as one torch module from token ids to vectors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.encoders.fused_bert import FusedBert, can_fuse
from recloom.encoders.pipeline import Pipeline
from recloom.errors import ArtifactError


class PooledModel(nn.Module):
    """Token ids of texts of one length, shape (B, L) -> vectors of shape (B, E)."""

    def __init__(self, language_model: nn.Module, pipeline: Pipeline) -> None:
        super().__init__()
        self.language_model = language_model
        self.pipeline = pipeline

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden_BLE = cast("Tensor", self.language_model(input_ids=input_ids).last_hidden_state)
        if self.pipeline.pooling == "mean":
            vectors_BE = hidden_BLE.mean(dim=1)
        else:
            vectors_BE = hidden_BLE[:, 0 if self.pipeline.pooling == "cls" else -1]
        return functional.normalize(vectors_BE, dim=1) if self.pipeline.normalize else vectors_BE


def load_pooled_model(folder: Path, pipeline: Pipeline, **options: Any) -> PooledModel:
    """Load a model folder in fp32, for reading only.

    Args:
        folder: What `save_pretrained` wrote.
        pipeline: How the folder wants hidden states pooled.
        options: Passed on to transformers' `from_pretrained`.

    Raises:
        ArtifactError: The weights are damaged, or are not all of the model's.
    """
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **options
            )
    except Exception as error:  # transformers raises whatever a damaged file leads to
        raise ArtifactError(f"the model in the encoder folder {folder} cannot be loaded ({error})") from error
    # The pooler is not used, and many models come without it; anything else missing would be random numbers.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        raise ArtifactError(
            f"the weights in the encoder folder {folder} lack {len(missing)} tensors of the model, such as"
            f" {missing[0]}; save the whole model there"
        )
    return PooledModel(model, pipeline).eval()


def reader(model: PooledModel, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from token ids to vectors, which threads may call at once."""
    if device == "cpu" and can_fuse(model.language_model):
        model = PooledModel(FusedBert(model.language_model), model.pipeline).eval()
    model.to(device)

    def read(token_BL: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return cast("np.ndarray", model(torch.from_numpy(token_BL).to(device)).cpu().numpy())

    return read


def pool(hidden_TLE: Tensor, mask_TL: Tensor, pipeline: Pipeline) -> Tensor:
    """Return the vectors of texts that were padded to one length, not normalised; shape (T, E)."""
    if pipeline.pooling == "mean":
        weight_TL1 = mask_TL[..., None].to(hidden_TLE)
        return (hidden_TLE * weight_TL1).sum(dim=1) / weight_TL1.sum(dim=1)
    if pipeline.pooling == "cls":
        return hidden_TLE[:, 0]
    return hidden_TLE[torch.arange(len(mask_TL)), mask_TL.sum(dim=1) - 1]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing progress bars and reporting on weights, for as long as this lasts."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
