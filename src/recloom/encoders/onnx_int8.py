"""A language model with 8-bit weights, run by ONNX Runtime: exported once, then read from the cache folder."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from recloom.encoders.cache_folder import cache_folder
from recloom.encoders.pipeline import Pipeline
from recloom.errors import ConfigError, MissingExtraError
from recloom.files import replacing


def load_int8(folder: Path, pipeline: Pipeline, digest: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from token ids to vectors, exporting the model the first time.

    Args:
        folder: What `save_pretrained` wrote.
        pipeline: How the folder wants hidden states pooled.
        digest: Of the folder; names the exported file.

    Raises:
        MissingExtraError: ONNX Runtime or its exporter is not installed.
        ConfigError: The model cannot be exported.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError("onnx", "8-bit encoding")
    import onnxruntime

    how = f"{pipeline.pooling}{'-normalized' if pipeline.normalize else ''}"
    exported = cache_folder() / f"int8-1-{digest}-{how}.onnx"
    if not exported.exists():
        with replacing(exported) as beside:
            _export(folder, pipeline, beside)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # batches are read side by side, each on one thread
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])

    def read(token_BL: np.ndarray) -> np.ndarray:
        return cast("np.ndarray", session.run(None, {"input_ids": token_BL})[0])

    return read


def _export(folder: Path, pipeline: Pipeline, target: Path) -> None:
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from recloom.encoders.pooled_model import load_pooled_model

    # Eager attention is plain matrix products, which the exporter and the quantiser know.
    model = load_pooled_model(folder, pipeline, attn_implementation="eager")
    full = target.with_suffix(".fp32")
    try:
        with quiet():
            torch.onnx.export(
                model,
                (torch.ones(2, 8, dtype=torch.long),),
                full,
                input_names=["input_ids"],
                dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            quantize_dynamic(full, target, weight_type=QuantType.QInt8, per_channel=True)
    except Exception as error:  # the exporter raises of every kind
        raise ConfigError(f"the model in {folder} cannot be exported to 8 bits ({error}); leave int8 off") from error
    finally:
        full.unlink(missing_ok=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter and the quantiser from warning about themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
