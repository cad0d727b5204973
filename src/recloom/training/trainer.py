"""The training loop."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from recloom.dataset import SECONDS_PER_DAY, Histories, gather, windows
from recloom.errors import ConfigError, TrainingError
from recloom.models import TrainedModel, TrainingData
from recloom.models.dealt_table import DealtTable, collected
from recloom.training.batches import shuffled_batches
from recloom.training.checkpoint import Epoch, TrainingState, load_checkpoint, save_checkpoint
from recloom.training.optimization import Optimization
from recloom.workers import ALONE, Workers

Stopped = Literal["patience", "epochs", "budget", "interrupted"]
LARGE_TABLE_BYTES = 1 << 30
"""A larger item table is dealt over workers; with what the optimiser remembers it is several times that."""
Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much is done and how much there is to do."""


def told_where(progress: Progress | None, where: str) -> Progress | None:
    """Return a progress that also says of which of several runs it tells; None where nobody listens."""
    if progress is None:
        return None
    progress(where, 0, 1)
    return lambda what, done, total: progress(f"{where}: {what}", done, total)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained: the [training] table of a run file."""

    epochs: int = 200
    """Most passes over the training data. 0: the model stays as it begins, which is of use where that is pretrained."""
    patience: int = 8
    """Training stops after so many epochs without a better NDCG@10 on validation."""
    batch_size: int = 1_024
    """Interactions that make one gradient step, about: short histories share a batch with many, long ones with few."""
    stride: int | None = None
    """Interactions between the ends of neighbouring windows of a long history. Unset: no overlap."""
    half_life_days: float | None = None
    """What is so many days older than the newest interaction is read half as often, twice as old a quarter as often.
    Unset: everything once an epoch."""
    learning_rate: float = 2e-3
    """Step size of AdamW."""
    weight_decay: float = 0.01
    """Decay of AdamW."""
    averaging: float = 0.99
    """Weights are judged and kept as a moving average over steps, of which the last ones count most: this is how much
    of the average stays at each step. 0: the weights of the last step."""
    gradient_clip: float = 5.0
    """Largest norm of a gradient; longer ones are scaled down."""
    validation_cases: int = 5_000
    """Most users that validation asks, chosen at random once; what decides when to stop need not ask everybody."""
    refit: bool = True
    """Train again, for the number of epochs found best, on validation too, where validation holds anything that
    was not learned from (not under leave-one-out, as in papers)."""
    budget: float | None = None
    """Most seconds to train, validation and refit included. Unset: no limit."""
    device: Literal["cpu", "cuda"] | None = None
    """Where gradient steps are computed. Unset: on a GPU where there is one."""
    shard_items: bool | None = None
    """Whether several workers hold a part of the item table each, instead of all of it. Unset: where it takes more than
    1 GB. One process by itself has nobody to share with."""
    pretrained: str | None = None
    """Folder that `recloom pretrain` wrote, whose network and place of texts to begin with."""
    teacher: str | None = None
    """Folder of a fitted model whose opinions are learned as well as what came next."""
    teacher_share: float = 0.5
    """How much of the loss is disagreement with the teacher."""
    seed: int = 0
    """Decides initial weights, batches, dropout and negatives."""

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ConfigError(f"training.epochs is {self.epochs}; it cannot be negative")
        for name in ("patience", "batch_size", "validation_cases", "learning_rate", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"training.{name} is {getattr(self, name)}; it has to be positive")
        if self.device not in (None, "cpu", "cuda"):
            raise ConfigError(f"training.device is {self.device!r}; choose cpu or cuda")
        if not 0 <= self.teacher_share <= 1:
            raise ConfigError(f"training.teacher_share is {self.teacher_share}; it has to lie in [0, 1]")
        if not 0 <= self.averaging < 1:
            raise ConfigError(f"training.averaging is {self.averaging}; it has to lie in [0, 1)")
        if self.stride is not None and self.stride < 1:
            raise ConfigError(f"training.stride is {self.stride}; it has to be at least 1")
        if self.half_life_days is not None and self.half_life_days <= 0:
            raise ConfigError(f"training.half_life_days is {self.half_life_days}; it has to be positive")
        if self.budget is not None and self.budget <= 0:
            raise ConfigError(f"training.budget is {self.budget} seconds; it has to be positive")


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """How a fitted model learns what happened since: the [update] table of a run file."""

    epochs: int = 5
    """Passes over what is new."""
    replay: float = 2.0
    """Old interactions that are read again with each new one, so that what was learned is not forgotten."""
    replay_days: float | None = None
    """Read again only the last so many days. Unset: anything."""
    learning_rate: float = 0.5
    """Step size, as a share of what the model was trained with."""

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"update.{name} is {getattr(self, name)}; it has to be positive")
        if self.replay < 0:
            raise ConfigError(f"update.replay is {self.replay}; it cannot be negative")
        if self.replay_days is not None and self.replay_days <= 0:
            raise ConfigError(f"update.replay_days is {self.replay_days}; it has to be positive")


@dataclass(frozen=True)
class TrainingResult:
    """What a run of the loop came to. The model holds the best weights."""

    curve: list[Epoch]
    best_epoch: int
    best_validation: float | None
    stopped: Stopped
    moments: dict[str, torch.Tensor]
    """What the optimiser remembered of past gradients at the best epoch, as `PARAMETER.moment`."""


def train(
    model: TrainedModel,
    data: TrainingData,
    config: TrainingConfig,
    *,
    validate: Callable[[], float] | None,
    judge_beginning: bool = False,
    stretches: tuple[np.ndarray, np.ndarray] | None = None,
    moments: Mapping[str, torch.Tensor] | None = None,
    checkpoint: Path | None = None,
    key: str = "",
    progress: Progress | None = None,
    after_epoch: Callable[[Epoch], None] | None = None,
    workers: Workers = ALONE,
) -> TrainingResult:
    """Train a model until validation gets no better, and leave it with the weights of its best epoch.

    Ctrl-C ends the loop and keeps the best epoch so far. An epoch depends on the seed and its number alone,
    so a run that goes on from a checkpoint ends where it would have ended without a break.

    Several workers run this loop side by side, each on its share of every batch: the gradient of a step is that of the
    whole batch, so that they do what one of them would do, but for what dropout and negatives each draws by itself. The
    one that leads has the trained model in the end.

    Args:
        model: Prepared for the data.
        data: What to learn from.
        config: Steps, patience and the rest.
        validate: Scores the model as it stands, higher is better. None: train all `config.epochs`.
        judge_beginning: Whether the weights before the first step may turn out to be the best, as "epoch 0".
        stretches: Start and end positions of what an epoch reads. None: all windows of the data.
        moments: What the optimiser of an earlier training remembered, to go on from.
        checkpoint: File to keep the run's state in. None: keep none.
        key: Names the run; only a checkpoint with the same key is gone on from.
        progress: Told about each step.
        after_epoch: Told about each epoch; what it raises ends the training.
        workers: Those who take each step together.

    Raises:
        TrainingError: There is nothing to learn from, the loss is not a number, or workers see different checkpoints.
        ConfigError: The model's item table is to be dealt over workers, and it has none.
    """
    start_W, end_W = windows(data.segments, model.max_length, config.stride) if stretches is None else stretches
    if len(start_W) == 0:
        raise TrainingError(
            "no user has two interactions to learn from; a sequence model needs at least one pair, popular needs none"
        )
    device = device_for(config)
    workers.begin_alike(model)
    if _shards_items(model, config, workers):
        model.deal_items(workers)
    model.to(device)
    optimization = Optimization(
        model,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        gradient_clip=config.gradient_clip,
        averaging=config.averaging,
        workers=workers,
    )
    if moments:
        optimization.take_moments(moments)
    found = load_checkpoint(checkpoint, key, model, optimization, workers) if checkpoint else None
    state = found or TrainingState()
    if len(set(workers.gather(len(state.curve)))) > 1:
        raise TrainingError(
            f"some workers see the checkpoint {checkpoint} and others do not; put the model's folder on storage that"
            " all nodes share"
        )
    # Of what everybody holds alike, one copy of the best is enough.
    keeps_best = workers.is_lead or model.own_items is not None
    if not keeps_best:
        state.best_weights, state.best_moments = {}, {}
    began = time.monotonic() - (state.curve[-1].seconds if state.curve else 0.0)
    stopped: Stopped = "epochs"
    try:
        if judge_beginning and validate and not state.curve:
            state.beginning = workers.of_lead(validate())
            if keeps_best:
                state.best_weights = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
        for epoch in range(len(state.curve) + 1, config.epochs + 1):
            if state.curve and len(state.curve) - state.best_epoch >= config.patience:
                stopped = "patience"
                break
            if state.curve and _out_of_time(config, began, workers):
                stopped = "budget"
                break
            batches = _batches(data, start_W, end_W, model.max_length + 1, config, epoch, workers)
            loss, whole = _run_epoch(model, optimization, batches, config, epoch, began, progress, workers)
            with optimization.averaged():
                validation = workers.of_lead(validate()) if validate else None
                state.curve.append(Epoch(epoch, loss, time.monotonic() - began, validation))
                if validation is None or state.best_validation is None or validation > state.best_validation:
                    state.best_epoch = epoch
                    if keeps_best:
                        state.best_weights = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
                        state.best_moments = optimization.moments()
            if checkpoint and keeps_best:
                save_checkpoint(checkpoint, key, model, optimization, state, workers)
            if after_epoch:
                after_epoch(state.curve[-1])
            if not whole or _out_of_time(config, began, workers):
                stopped = "budget"
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
    model.cpu()
    if state.best_weights:
        model.load_state_dict(state.best_weights)
    if model.own_items is not None:
        state.best_moments = _whole_moments(state.best_moments, model, workers)
        model.collect_items()
    return TrainingResult(state.curve, state.best_epoch, state.best_validation, stopped, state.best_moments)


def new_and_replayed(
    data: TrainingData, is_new_N: np.ndarray, length: int, config: UpdateConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose what to learn from when data has grown: all windows with something new, and some without.

    Args:
        data: Everything.
        is_new_N: Which interactions are new.
        length: Inputs in a full window.
        config: How often, and how much of the old.
        seed: Decides which of the old.

    Returns:
        Start and end positions, as `windows` returns them.
    """
    start_W, end_W = windows(data.segments, length)
    new_before = np.concatenate([[0], np.cumsum(is_new_N)])
    num_new_W = new_before[end_W] - new_before[start_W]
    new, old = np.flatnonzero(num_new_W > 0), np.flatnonzero(num_new_W == 0)
    if config.replay_days is not None:
        times = data.dataset.timestamp
        old = old[times[end_W[old] - 1] > times.max() - config.replay_days * SECONDS_PER_DAY]
    new = np.tile(new, config.epochs)
    # Each old window once at most: another one teaches more than the same again.
    old = np.random.default_rng(seed).permutation(old)
    wanted = config.replay * int(is_new_N.sum()) * config.epochs
    old = old[np.cumsum(end_W[old] - start_W[old]) <= wanted]
    chosen = np.concatenate([new, old])
    return start_W[chosen], end_W[chosen]


def device_for(config: TrainingConfig) -> torch.device:
    """Return where gradient steps are computed."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("training.device is cuda, but torch finds no CUDA device here; leave it out to train on cpu")
    return torch.device(config.device or ("cuda" if has_cuda else "cpu"))


@dataclass(frozen=True)
class _Batch:
    read: Callable[[], Histories]
    """Reads this worker's share of it."""
    share: float
    """How much of the batch that is, in targets."""
    num_targets: int
    """Of the whole batch."""


def _batches(
    data: TrainingData,
    start_W: np.ndarray,
    end_W: np.ndarray,
    length: int,
    config: TrainingConfig,
    epoch: int,
    workers: Workers,
) -> Sequence[_Batch]:
    """Return this worker's share of each batch of an epoch, in the order that seed and epoch decide."""
    rng = np.random.default_rng((config.seed, epoch))
    if config.half_life_days is not None:
        time_W = data.dataset.timestamp[end_W - 1]
        age_W = (time_W.max() - time_W) / SECONDS_PER_DAY
        is_read_W = rng.random(len(age_W)) < 0.5 ** (age_W / config.half_life_days)
        start_W, end_W = start_W[is_read_W], end_W[is_read_W]
    batches = []
    for whole in shuffled_batches(end_W - start_W, config.batch_size, rng):
        num_targets = _num_targets(start_W[whole], end_W[whole])
        mine = workers.share(whole)
        share = _num_targets(start_W[mine], end_W[mine]) / num_targets
        # Who is left without a window reads one that is somebody else's and does not count: all take part in all steps.
        read = mine if len(mine) else whole[:1]
        batches.append(_Batch(partial(gather, data.dataset, start_W[read], end_W[read], length), share, num_targets))
    return batches


def _run_epoch(
    model: TrainedModel,
    optimization: Optimization,
    batches: Sequence[_Batch],
    config: TrainingConfig,
    epoch: int,
    began: float,
    progress: Progress | None,
    workers: Workers,
) -> tuple[float, bool]:
    """Take one pass over the batches; return the mean loss and whether there was time for all of them."""
    torch.manual_seed(config.seed * 1_000_003 + epoch + workers.rank * 1_000_000_007)
    model.train()
    device = next(model.parameters()).device
    # Half precision pays on a GPU that has it; on a CPU without it, it is hundreds of times slower.
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
    total, targets = 0.0, 0
    for step, batch in enumerate(batches, start=1):
        histories = batch.read()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
            loss = model.loss(histories) * batch.share
        value = workers.sum(loss.item())
        if not math.isfinite(value):
            users = ", ".join(map(str, histories.user_index_B[:5]))
            raise TrainingError(
                f"the loss is {value} at epoch {epoch}, step {step} of {len(batches)} (batch of {len(histories)}"
                f" histories, the first of users number {users}); lower training.learning_rate"
                f" ({config.learning_rate}). The checkpoint of epoch {epoch - 1} is kept"
            )
        optimization.step(loss)
        total, targets = total + value * batch.num_targets, targets + batch.num_targets
        if progress:
            progress(f"epoch {epoch}, loss {total / targets:.3f}", step, len(batches))
        if _out_of_time(config, began, workers):
            return total / targets, step == len(batches)
    return total / targets, True


def _num_targets(start_W: np.ndarray, end_W: np.ndarray) -> int:
    return int((end_W - start_W).sum()) - len(start_W)


def _out_of_time(config: TrainingConfig, began: float, workers: Workers) -> bool:
    return config.budget is not None and workers.of_lead(time.monotonic() - began >= config.budget)


def _shards_items(model: TrainedModel, config: TrainingConfig, workers: Workers) -> bool:
    is_large = model.item_table_bytes > LARGE_TABLE_BYTES
    return workers.size > 1 and (is_large if config.shard_items is None else config.shard_items)


def _whole_moments(
    moments: Mapping[str, torch.Tensor], model: TrainedModel, workers: Workers
) -> dict[str, torch.Tensor]:
    """Put together, on the worker that leads, what each one's optimiser remembers of its rows of a table."""
    dealt = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, DealtTable)}
    whole = dict(moments)
    for name in sorted(moments):
        if name.rpartition(".")[0] in dealt and moments[name].dim():
            rows_ID = collected(moments[name], workers)
            if rows_ID is not None:
                whole[name] = rows_ID
    return whole


def usual_batch_size(num_interactions: int) -> int:
    """Return a batch size of which an epoch has some hundred steps: between 1,024 and 4,096 interactions."""
    return int(np.clip(num_interactions // 200, 1_024, 4_096))
