"""A model folder -> what it costs to keep and to ask: run as a process of its own, so that nothing else is counted.

python -m recloom.compression.measuring MODEL [GRAPH]
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from recloom.compression.onnx_export import graph_inputs, open_session, sample_histories
from recloom.errors import RecloomError
from recloom.files import current_folder
from recloom.models.weave import Weave
from recloom.recommender import MOMENTS_NAME, Recommender
from recloom.retrieval.search import Search

ASKED = 200
"""Histories, asked one at a time; the median counts."""
CUTOFF = 10


@dataclass(frozen=True)
class Costs:
    """What a model costs, dataset and language model left out."""

    disk_bytes: int
    """Of all tensors that answering needs."""
    resident_bytes: int
    """By how much the process grew, from before the model was loaded until it answers."""
    answer_ms: float
    """From a history to its ten best items as a service does it: one history, one core, the median."""
    graph_bytes: int | None
    """Of the exported graph; None where the extra `onnx` is not installed."""
    graph_ms: float | None
    """From the same history to the same items in ONNX Runtime."""


def measure(model: Path, graph: Path | None) -> Costs:
    """Measure a model, and its graph where there is one, in a fresh process.

    Raises:
        RecloomError: That process failed.
    """
    command = [sys.executable, "-m", "recloom.compression.measuring", str(model), *([str(graph)] if graph else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RecloomError(f"measuring {model} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return Costs(**json.loads(done.stdout))


def _measure_here(model: Path, graph: Path | None) -> Costs:
    torch.set_num_threads(1)
    before = _resident_bytes()
    recommender = Recommender.load(model)
    search = Search(recommender.model)
    histories = sample_histories(recommender, ASKED)
    size = recommender.model.num_items + 1
    single = [histories.rows(np.array([row])) for row in range(len(histories))]
    allowed_BI = []
    for one in single:
        allowed_I = np.ones(size, dtype=bool)
        allowed_I[[0] if recommender.config.include_seen else [0, *one.seen()[1]]] = False
        allowed_BI.append(allowed_I)

    def ask(number: int) -> None:
        search.search(single[number], [allowed_BI[number]], [None])[0].best(CUTOFF)

    answer_ms = _median_ms(ask, len(single))
    resident_bytes = _resident_bytes() - before
    graph_ms = None
    if graph is not None:
        assert isinstance(recommender.model, Weave)
        session = open_session(graph)
        inputs = [graph_inputs(recommender.model, one, not recommender.config.include_seen) for one in single]
        graph_ms = _median_ms(lambda number: session.run(None, inputs[number]), len(single))
    tensors = [path for path in current_folder(model).glob("*.safetensors") if path.name != MOMENTS_NAME]
    disk_bytes = sum(path.stat().st_size for path in tensors)
    graph_bytes = sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*")) if graph else None
    return Costs(disk_bytes, resident_bytes, answer_ms, graph_bytes, graph_ms)


def _median_ms(ask: Callable[[int], object], count: int) -> float:
    for number in range(min(20, count)):  # the first answers wait for memory and caches
        ask(number)
    took = []
    for number in range(count):
        began = time.perf_counter()
        ask(number)
        took.append(time.perf_counter() - began)
    return 1_000 * float(np.median(took))


def _resident_bytes() -> int:
    """Return what this process holds in memory now; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_here(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))))
