"""A dataset and a config -> a fitted model, as `fit_model` makes it, by several workers of a Ray cluster.

Shapes: I catalogue (with the padding row), E width of text embeddings.
"""

import os
import pickle
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from recloom.cluster.board import Board, Teller
from recloom.dataset import Dataset, Split, split_dataset
from recloom.errors import ArtifactError, ConfigError, RecloomError
from recloom.fitting import blank_model, fit_model, portable
from recloom.models import ItemText, Model, Teacher
from recloom.run_config import RunConfig
from recloom.training import Epoch, Progress, TrainingResult
from recloom.workers import Group

MOST_FAILURES = 10
"""Losses of workers after which a run is given up; each costs one epoch at most."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_ROOM = 25
"""How long Ray Train waits for room for as many workers as it believes there is, before it counts again. It learns of a
lost node within 20 s, and until then it would wait for workers on it."""
SECONDS_TO_GROW = 900.0
"""How long nobody may have started to train, in case machines are on their way."""


@dataclass(frozen=True)
class _Work:
    """What a worker has to know."""

    dataset: Path
    fingerprint: str
    config: RunConfig
    text: ItemText | None
    teacher: Teacher | None
    checkpoint: Path | None
    tell: Teller


@dataclass(frozen=True)
class RayFitter:
    """`fit_model` on the Ray cluster that this program is connected to.

    Where a worker or a whole node is lost, Ray Train starts as many workers again as there is room for, and they go on
    from the checkpoint; where there is room for more, up to the number asked for, it starts those. The same command
    given again goes on too, with the same or another number of workers.
    """

    workers: int | None = None
    """How many train together, at most. None: one for each GPU, or else one for each node."""

    def __call__(
        self,
        dataset: Dataset,
        split: Split,
        config: RunConfig,
        text: ItemText | None,
        teacher: Teacher | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> tuple[TrainingResult | None, Model, bool]:
        """Train as `fit_model` does; arguments and results are the same.

        Raises:
            ConfigError: The cluster has no GPU, and one is asked for.
            RecloomError: Too many workers were lost, or there was no room for any.
        """
        import ray
        from ray.train import ScalingConfig
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        size, resources, use_gpu = _room(ray.nodes(), self.workers, config.training.device)
        if checkpoint:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
        # On this node, which is there as long as anybody asks.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
        work = _Work(
            dataset.path.absolute(),
            dataset.fingerprint,
            config,
            portable(text, config.encoder) if text else None,
            teacher,
            checkpoint.absolute() if checkpoint else None,
            Teller(board),
        )
        # Elastic: those that are left go on, and others join when the cluster has room again.
        scaling = ScalingConfig(
            num_workers=(1, size) if size > 1 else size, use_gpu=use_gpu, resources_per_worker=resources
        )
        with TemporaryDirectory() as temporary:
            beside = work.checkpoint or Path(temporary) / "checkpoint"
            folder = beside.with_name(f"{beside.name}.ray")
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed; its checkpoint is elsewhere
            try:
                outcome = _in_background(lambda: _trained(work, scaling, folder), board, progress)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        if isinstance(outcome, RecloomError):
            raise outcome
        result, state, was_refitted = pickle.loads(outcome)
        model = blank_model(dataset, config, text)
        model.load_state_dict(state)
        return result, model, was_refitted


def _trained(work: _Work, scaling: Any, folder: Path) -> Any:
    """Run Ray Train; return what the worker that leads returned."""
    import ray
    from ray.train import FailureConfig, RunConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(SECONDS_FOR_ROOM))
    trainer = TorchTrainer(
        _train_share,
        train_loop_config={"work": ray.put(work)},
        scaling_config=scaling,
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(max_failures=MOST_FAILURES),
        ),
    )
    try:
        return trainer.fit().return_value
    except TrainingFailedError as error:
        causes = getattr(error, "worker_failures", {}) or {0: error}
        cause = getattr(next(iter(causes.values())), "_base_exc", error)
        why = next(iter(str(cause).splitlines()), "")
        return RecloomError(
            f"the workers of the Ray cluster failed more than {MOST_FAILURES} times, at last with"
            f" {type(cause).__name__}: {why}; the checkpoint is kept, give the same command again"
        )


def _train_share(config: dict[str, Any]) -> Any:
    """Train on one worker. The one that leads returns the result, the model's state and whether it was fitted again.

    What recloom foresaw is written on the board before it is raised: raising it ends the others, who may be waiting for
    this one, and when all are started again they find it there and return it.
    """
    import ray
    import ray.train
    from ray.train.torch import get_device

    work: _Work = ray.get(config["work"])
    if reason := ray.get(work.tell.board.reason.remote()):
        return pickle.loads(reason)
    work.tell("starting", 0, 1)
    group = Group()
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a node's GPUs are not for workers that were given none
    # A new cluster on one machine says that it has more CPUs than there are.
    cores = max(1, (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size())
    torch.set_num_threads(min(torch.get_num_threads(), cores))
    # What comes from the object store is shared by all workers of a node, and nobody writes to it.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    if problem := next(filter(None, group.gather(_problem(work))), None):
        return ArtifactError(problem)
    dataset = Dataset(work.dataset)

    def report(epoch: Epoch) -> None:
        ray.train.report({"epoch": epoch.epoch, "loss": epoch.loss, "validation": epoch.validation})

    try:
        result, model, was_refitted = fit_model(
            dataset,
            split_dataset(dataset, work.config.split),
            work.config,
            work.text,
            work.teacher,
            work.checkpoint,
            work.tell if group.is_lead else None,
            after_epoch=report,
            workers=group,
        )
    except RecloomError as error:
        ray.get(work.tell.board.give_up.remote(pickle.dumps(error)))
        raise
    # Ray Train takes no tensors back, in case whoever asked has no torch.
    return pickle.dumps((result, model.state_dict(), was_refitted)) if group.is_lead else None


def _problem(work: _Work) -> str | None:
    """Return why this node cannot take part, if it cannot."""
    import ray

    node = ray.util.get_node_ip_address()
    folder = work.dataset.parent
    try:
        found = Dataset(work.dataset).fingerprint
    except ArtifactError:
        return f"the node {node} sees no dataset at {folder}; put it on storage that all nodes share, at the same path"
    if found != work.fingerprint:
        return f"the node {node} sees another dataset at {folder}; put it on storage that all nodes share"
    if work.checkpoint and not os.access(work.checkpoint.parent, os.W_OK):
        return (
            f"the node {node} cannot write to {work.checkpoint.parent}; put the model on storage that all nodes share"
        )
    return None


def _in_background(run: Callable[[], Any], board: Any, progress: Progress | None) -> Any:
    """Run something for long, so that Ctrl-C is ours, and show what its workers tell meanwhile.

    Raises:
        RecloomError: No worker has started for long.
    """
    import ray

    outcome: list[Any] = []

    def keep() -> None:
        try:
            outcome.append(run())
        except BaseException as error:  # raised again where somebody listens
            outcome.append(error)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    began, has_started = time.monotonic(), False
    while thread.is_alive():
        thread.join(SECONDS_BETWEEN_LOOKS)
        told = ray.get(board.read.remote())
        has_started = has_started or told is not None
        if not has_started and time.monotonic() - began > SECONDS_TO_GROW:
            raise RecloomError(
                f"the Ray cluster had no room for a worker for {SECONDS_TO_GROW / 60:.0f} minutes; look at what it has"
                " and what others use with: ray status"
            )
        if progress:
            progress(*(told or ("waiting for room on the cluster", 0, 1)))
    if isinstance(outcome[0], BaseException) and not isinstance(outcome[0], RecloomError):
        raise outcome[0]
    return outcome[0]


def _room(
    nodes: list[Mapping[str, Any]], workers: int | None, device: str | None
) -> tuple[int, dict[str, float], bool]:
    """Return how many workers train at most, what each of them gets, and whether on GPUs.

    Where there is room for fewer, those begin, and more join when the cluster has grown. There may be no room yet.

    >>> _room([{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {"CPU": 3.0}}], 2, None)
    (2, {'CPU': 3.0}, False)
    >>> _room([{"Alive": True, "Resources": {"CPU": 9.0, "GPU": 2.0}}], None, None)
    (2, {'CPU': 4.0, 'GPU': 1.0}, True)
    >>> plain, with_gpus = {"CPU": 32.0}, {"CPU": 4.0, "GPU": 4.0}
    >>> _room([{"Alive": True, "Resources": plain}, {"Alive": True, "Resources": with_gpus}], None, None)
    (4, {'CPU': 1.0, 'GPU': 1.0}, True)
    """
    have = [node["Resources"] for node in nodes if node["Alive"]]
    num_gpus = int(sum(resources.get("GPU", 0) for resources in have))
    able = [int(resources.get("CPU", 0)) for resources in have if resources.get("CPU", 0) >= 1]

    def room(node: Mapping[str, float], each: int) -> int:
        places = int(node.get("CPU", 0)) // each
        return min(places, int(node.get("GPU", 0))) if use_gpu else places

    size = workers or (num_gpus if num_gpus and device != "cpu" else len(able))
    if size < 1:
        raise ConfigError(
            "the Ray cluster has no node with a CPU now; start one, or say with --workers how many it is to grow to"
        )
    if device == "cuda" and not workers and not num_gpus:
        raise ConfigError(
            "training.device is cuda, and the Ray cluster has no GPU now; leave it out, or say with --workers how many"
            " it is to grow to"
        )
    use_gpu = device == "cuda" or (num_gpus >= size and device != "cpu")
    enough = [count for count in range(1, max(able, default=1) + 1) if sum(room(node, count) for node in have) >= size]
    each = max(enough, default=1)
    return size, {"CPU": float(each)} | ({"GPU": 1.0} if use_gpu else {}), use_gpu
