"""People and what they may change at most -> a model trained by noised steps, and the account of what was promised.

Shapes: P people, W windows, I catalogue (with the padding row).
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recloom.dataset import gather, windows
from recloom.errors import ConfigError, TrainingError
from recloom.models import TrainedModel, TrainingData
from recloom.training.optimization import Optimization
from recloom.training.privacy import (
    COUNTS_NOISE,
    PrivacyConfig,
    PrivacyRecord,
    PrivateRelease,
    accountant_version,
    epsilon_spent,
    noise_needed,
    usual_delta,
)
from recloom.training.trainer import Progress, TrainingConfig, TrainingResult, device_for


def train_privately(
    model: TrainedModel,
    data: TrainingData,
    config: TrainingConfig,
    privacy: PrivacyConfig,
    *,
    progress: Progress | None = None,
) -> tuple[TrainingResult, PrivateRelease]:
    """Train by DP-SGD on people: each step adds up one gradient a person, none longer than a bound, and noise.

    Who takes part in a step is drawn for each person by itself (Poisson sampling), which is what the accountant
    reckons with. Nothing is validated: to choose an epoch by what people did would tell of them. Nothing of the
    training's own losses is kept, for the same reason.

    Args:
        model: Prepared privately.
        data: What to learn from.
        config: Epochs and step size; an epoch is as many steps as it takes to draw everybody once on average.
        privacy: What is promised.
        progress: Told about each step.

    Returns:
        The result of training, and what else was released of people: how popular items are, noised likewise.

    Raises:
        ConfigError: A table of the model is updated by the rows in use, which would tell who was drawn.
        MissingExtraError: The accountant is not installed.
        TrainingError: There is nothing to learn from.

    Source: Abadi et al. (2016), https://arxiv.org/abs/1607.00133; with people as the unit, McMahan et al. (2018),
    https://arxiv.org/abs/1710.06963
    """
    assert privacy.epsilon is not None
    if any(m.sparse for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)):
        raise ConfigError(
            "privacy.epsilon needs noise in every row of the table of item ids, and this catalogue is so large that"
            " its table is updated by the rows in use; set model.fusion=text"
        )
    people = People(data, model.max_length, config.stride)
    steps = max(1, round(config.epochs / privacy.sample_rate))
    delta = privacy.delta or usual_delta(len(people))
    noise = noise_needed(privacy.epsilon, delta, privacy.sample_rate, steps)
    # A seed that somebody knows takes the noise off again, so none is kept unless the caller gave one.
    rng = np.random.default_rng(privacy.seed)
    popularity_I = noised_popularity(people, noise * COUNTS_NOISE, rng)
    model.to(device_for(config)).train()
    optimization = Optimization(
        model,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        gradient_clip=config.gradient_clip,
        averaging=config.averaging,
    )
    for step in range(1, steps + 1):
        drawn = np.flatnonzero(rng.random(len(people)) < privacy.sample_rate)
        total = summed_gradients(model, people, drawn, privacy.clip_norm, seed=int(rng.integers(2**32)))
        add_noise(total, noise * privacy.clip_norm, rng)
        # By how many are expected, not by how many were drawn, which would tell whether somebody was.
        optimization.step_along([gradient / (privacy.sample_rate * len(people)) for gradient in total])
        if progress:
            progress("private training", step, steps)
    with optimization.averaged():
        weights = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    model.cpu().load_state_dict(weights)
    record = PrivacyRecord(
        epsilon=epsilon_spent(noise, delta, privacy.sample_rate, steps),
        delta=delta,
        people=len(people),
        noise_multiplier=noise,
        clip_norm=privacy.clip_norm,
        sample_rate=privacy.sample_rate,
        steps=steps,
        secret_noise=privacy.seed is None,
        accountant=f"RDP, opacus {accountant_version()}",
    )
    result = TrainingResult([], 0, None, "epochs", optimization.moments())
    return result, PrivateRelease(record, popularity_I)


class People:
    """Everybody who has something to learn from, with all windows of theirs."""

    def __init__(self, data: TrainingData, max_length: int, stride: int | None) -> None:
        self.dataset, self._length = data.dataset, max_length + 1
        self._start_W, self._end_W = windows(data.segments, max_length, stride)
        if len(self._start_W) == 0:
            raise TrainingError("no user has two interactions to learn from; a sequence model needs at least one pair")
        user_W = np.searchsorted(self.dataset.user_offsets, self._start_W, side="right") - 1
        self._user_P, first_P = np.unique(user_W, return_index=True)
        self._bounds = [*first_P.tolist(), len(user_W)]
        self.segment_P = [(int(data.segments.start[user]), int(data.segments.end[user])) for user in self._user_P]

    def __len__(self) -> int:
        return len(self._user_P)

    def loss(self, model: TrainedModel, person: int, seed: int) -> Tensor:
        """Return the mean loss of one person, which depends on that person, the weights and the seed alone."""
        # Dropout and negatives are drawn anew for each person: were one stream shared, what is drawn for one would
        # depend on who came before.
        torch.manual_seed(seed ^ zlib.crc32(self.dataset.users.id_of(int(self._user_P[person])).encode()))
        mine = slice(self._bounds[person], self._bounds[person + 1])
        return model.loss(gather(self.dataset, self._start_W[mine], self._end_W[mine], self._length))


def summed_gradients(
    model: TrainedModel, people: People, drawn: Sequence[int] | np.ndarray, clip_norm: float, seed: int
) -> list[Tensor]:
    """Add up one gradient a person, each scaled down to at most a norm over all parameters together."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for person in drawn:
        gradients = torch.autograd.grad(
            people.loss(model, int(person), seed), parameters, allow_unused=True, materialize_grads=True
        )
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        # Somebody whose gradient is no number would spoil everybody's step, which is more than the bound allows.
        if np.isfinite(norm):
            torch._foreach_add_(total, gradients, alpha=min(1.0, clip_norm / max(norm, 1e-12)))
    return total


def add_noise(total: Sequence[Tensor], deviation: float, rng: np.random.Generator) -> None:
    """Add normal noise of a standard deviation to every value."""
    for values in total:
        # numpy's generator: torch's keeps 32 bits of its seed, so few that they can be tried out.
        noise = torch.from_numpy(rng.standard_normal(tuple(values.shape), dtype=np.float32))
        values.add_(noise.to(values), alpha=deviation)


def noised_popularity(people: People, noise_multiplier: float, rng: np.random.Generator) -> np.ndarray:
    """Return how popular each item is, in hundredths of a person, with noise; shape (I,), int64.

    Everybody has one vote, parted among the items they took so that its Euclidean norm is 1.
    """
    votes_I = np.zeros(len(people.dataset.items) + 1)
    for start, end in people.segment_P:
        items, counts = np.unique(people.dataset.item_index[start:end], return_counts=True)
        votes_I[items] += counts / np.linalg.norm(counts)
    votes_I += noise_multiplier * rng.standard_normal(len(votes_I))
    votes_I[0] = 0
    return np.round(100 * votes_I.clip(min=0)).astype(np.int64)
