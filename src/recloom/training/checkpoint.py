"""The state of a training run on disk, so that a kill costs one epoch at most."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recloom.files import replacing
from recloom.training.optimization import Optimization


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

    @property
    def best_validation(self) -> float | None:
        """NDCG@10 on validation of the best epoch so far."""
        return self.curve[self.best_epoch - 1].validation if self.best_epoch else None


def save_checkpoint(path: Path, key: str, model: nn.Module, optimization: Optimization, state: TrainingState) -> None:
    """Write everything a run needs to go on, beside the previous checkpoint, and take its place."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best_weights.items()}
    tensors |= {f"best_moments.{name}": tensor for name, tensor in state.best_moments.items()}
    tensors |= {f"optimization.{name}": tensor for name, tensor in optimization.tensors().items()}
    facts = {
        "key": key,
        "state": json.dumps({"curve": [asdict(epoch) for epoch in state.curve], "best_epoch": state.best_epoch}),
    }
    with replacing(path) as beside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, metadata=facts)


def load_checkpoint(path: Path, key: str, model: nn.Module, optimization: Optimization) -> TrainingState | None:
    """Put a run back where its checkpoint left it.

    Args:
        path: The checkpoint's file.
        key: Names the run. A checkpoint of another run (other data, other settings) is left alone.
        model: Takes the weights.
        optimization: Takes its own state.

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
    model.load_state_dict(_under("model.", tensors))
    optimization.load_tensors(_under("optimization.", tensors))
    saved = json.loads(facts["state"])
    curve = [Epoch(**epoch) for epoch in saved["curve"]]
    return TrainingState(curve, saved["best_epoch"], _under("best.", tensors), _under("best_moments.", tensors))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
