"""The state of a training run on disk, so that a kill costs one epoch at most."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recloom.files import replacing
from recloom.models.dealt_table import DealtTable, own_rows
from recloom.training.optimization import ROW_MOMENTS, Optimization
from recloom.workers import ALONE, Workers


@dataclass
class Epoch:
    """One point of the training curve."""

    epoch: int
    loss: float
    seconds: float
    """Since training began, validation included."""
    validation: float | None
    """NDCG@10 on validation; None where there is no validation."""


@dataclass
class TrainingState:
    """Where a run stands after some epoch."""

    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_moments: dict[str, Tensor] = field(default_factory=dict)
    beginning: float | None = None
    """NDCG@10 on validation before the first step; None where that was not asked."""

    @property
    def best_validation(self) -> float | None:
        """NDCG@10 on validation of the best epoch so far, 0 being the beginning."""
        return self.curve[self.best_epoch - 1].validation if self.best_epoch else self.beginning


def save_checkpoint(
    path: Path, key: str, model: nn.Module, optimization: Optimization, state: TrainingState, workers: Workers = ALONE
) -> None:
    """Write everything a run needs to go on, beside the previous checkpoint, and take its place.

    Of a table that is dealt out each worker writes its own rows, into a file beside it. The checkpoint names those
    files and takes its place last, so that a kill at any moment leaves a whole one.
    """
    tensors = _tensors(model, optimization, state)
    dealt = {name: tensors.pop(name).contiguous() for name in _dealt_names(model, optimization) & set(tensors)}
    curve = [asdict(epoch) for epoch in state.curve]
    numbers = {"curve": curve, "best_epoch": state.best_epoch, "beginning": state.beginning}
    facts = {"key": key, "state": json.dumps(numbers)}
    parts = _parts(path, key, len(state.curve), workers.size) if dealt else []
    if dealt:
        with replacing(parts[workers.rank]) as beside:
            save_file(dealt, beside)
        workers.wait()
        facts["parts"] = str(workers.size)
    if workers.is_lead:
        with replacing(path) as beside:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, metadata=facts)
        _remove_parts(path, kept=parts)


def load_checkpoint(
    path: Path, key: str, model: nn.Module, optimization: Optimization, workers: Workers = ALONE
) -> TrainingState | None:
    """Put a run back where its checkpoint left it.

    Args:
        path: The checkpoint's file.
        key: Names the run. A checkpoint of another run (other data, other settings) is left alone.
        model: Takes the weights.
        optimization: Takes its own state.
        workers: Those who go on, who may be more or fewer than those who wrote.

    Returns:
        The state to go on from; None where there is no checkpoint of this run.
    """
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        if facts["key"] != key:
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    saved = json.loads(facts["state"])
    for name in _dealt_names(model, optimization) & set(tensors):  # written by one process, which had them whole
        tensors[name] = own_rows(tensors[name], workers)
    if "parts" in facts:
        tensors |= _own_rows_of(_parts(path, key, len(saved["curve"]), int(facts["parts"])), workers)
    model.load_state_dict(_under("model.", tensors))
    optimization.load_tensors(_under("optimization.", tensors))
    curve = [Epoch(**epoch) for epoch in saved["curve"]]
    best, moments = _under("best.", tensors), _under("best_moments.", tensors)
    return TrainingState(curve, saved["best_epoch"], best, moments, saved.get("beginning"))


def refit_checkpoint(path: Path) -> Path:
    """Return the file that keeps the state of training again on everything, beside that of the search."""
    return path.with_name(f"{path.name}.refit")


def remove_checkpoint(path: Path) -> None:
    """Remove the checkpoints of a run with all their files, if there are any."""
    for one in (path, refit_checkpoint(path)):
        one.unlink(missing_ok=True)
        _remove_parts(one, kept=[])


def _tensors(model: nn.Module, optimization: Optimization, state: TrainingState) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
    tensors |= {f"best_moments.{name}": tensor for name, tensor in state.best_moments.items()}
    return tensors | {f"optimization.{name}": tensor for name, tensor in optimization.tensors().items()}


def _dealt_names(model: nn.Module, optimization: Optimization) -> set[str]:
    """Return the names of tensors of which each worker has some rows."""
    tables = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, DealtTable)]
    names = {f"{kind}.{table}" for table in tables for kind in ("model", "best")}
    names |= {f"best_moments.{table}.{name}" for table in tables for name in ROW_MOMENTS}
    return names | {f"optimization.{name}" for name in optimization.dealt_tensors()}


def _parts(path: Path, key: str, epoch: int, size: int) -> list[Path]:
    """Return the files that hold the rows of each worker after an epoch of a run."""
    run = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()  # another run's may lie beside them
    return [path.with_name(f"{path.name}.rows-{run}-{epoch}-{rank}-of-{size}") for rank in range(size)]


def _remove_parts(path: Path, kept: Sequence[Path]) -> None:
    for part in path.parent.glob(f"{path.name}.rows-*"):
        if part not in kept:
            part.unlink(missing_ok=True)


def _own_rows_of(parts: Sequence[Path], workers: Workers) -> dict[str, Tensor]:
    """Return this worker's rows of each table, whose rows were dealt out over as many as there are files.

    One part of one table is read at a time, and of a part no more than what is this worker's is kept.
    """
    own: dict[str, Tensor] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(part, framework="pt")) for part in parts]
        for name in files[0].keys():  # noqa: SIM118 - not a dict
            num_rows = sum(file.get_slice(name).get_shape()[0] for file in files)
            for number, file in enumerate(files):
                rows_RD = file.get_tensor(name)
                row_R = torch.arange(number, num_rows, len(parts))
                is_own_R = row_R % workers.size == workers.rank
                if name not in own:
                    mine = len(range(workers.rank, num_rows, workers.size))
                    own[name] = rows_RD.new_empty(mine, *rows_RD.shape[1:])
                own[name][row_R[is_own_R] // workers.size] = rows_RD[is_own_R]
    return own


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
