"""Tensors -> a safetensors file that is as small as it may be, and back."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SCALE, ROWS = ".int8_scale", ".num_rows"
NARROW = 16
"""A matrix with fewer columns is kept as it is: there is little to gain, and its columns may differ in size."""


def save_compact(tensors: Mapping[str, Tensor], path: Path, *, int8: bool) -> None:
    """Write tensors without the rows of zeros that end a matrix and, if asked, with 8-bit numbers in matrices."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_matrix = tensor.dtype == torch.float32 and tensor.dim() == 2 and tensor.shape[1] >= NARROW
        if is_matrix and not tensor[-1:].any():
            filled = tensor.any(dim=1).nonzero()
            stored[name + ROWS] = torch.tensor([len(tensor)])
            tensor = tensor[: int(filled[-1]) + 1 if len(filled) else 0]
        if is_matrix and int8:
            tensor, stored[name + SCALE] = to_int8(tensor)
        stored[name] = tensor.contiguous()
    save_file(stored, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_compact`, or safetensors itself, wrote: tensors in single precision, with all their rows."""
    stored = load_file(path)
    tensors = {name: tensor for name, tensor in stored.items() if not name.endswith((SCALE, ROWS))}
    for name, tensor in tensors.items():
        if name + SCALE in stored:
            tensors[name] = tensor = tensor.float() * stored[name + SCALE][:, None]
        if name + ROWS in stored:
            # numpy's zeros take no memory before they are written to, torch's do.
            whole = torch.from_numpy(np.zeros((int(stored[name + ROWS]), tensor.shape[1]), dtype=np.float32))
            whole[: len(tensor)] = tensor
            tensors[name] = whole
    return tensors


def to_int8(matrix_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row in 8-bit steps, int8 of shape (R, D), and how large a step is, shape (R,).

    The largest entry of a row is 127 steps, so that a matrix that was read back is stored as it was.

    >>> to_int8(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))[0]
    tensor([[  64, -127],
            [   0,    0]], dtype=torch.int8)
    """
    scale_R = matrix_RD.abs().amax(dim=1) / 127
    steps_RD = matrix_RD / torch.where(scale_R > 0, scale_R, 1.0)[:, None]
    return steps_RD.round().to(torch.int8), scale_R
