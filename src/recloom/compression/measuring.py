"""A model folder -> what it costs to keep and to ask: run as a process of its own, so that nothing else is counted.

python -m recloom.compression.measuring MODEL [GRAPH]
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recloom.compression.onnx_export import graph_inputs, open_session, sample_histories
from recloom.dataset import PADDING_INDEX
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
    """By how much the process grew, from before model and dataset were loaded until it answered."""
    answer_ms: float
    """From a history to its ten best items as a service does it: processor time for one history, the median."""
    graph_bytes: int | None = None
    """Of the exported graph; None where there is none."""
    graph_resident_bytes: int | None = None
    """By how much the process grew, from before the graph was opened in ONNX Runtime until it answered."""
    graph_ms: float | None = None
    """From the same histories to the same items in ONNX Runtime, titles left out."""


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
    session = graph_resident_bytes = None
    if graph is not None:
        begin = _resident_bytes()
        session = open_session(graph)
        session.run(None, _any_input(session))
        graph_resident_bytes = _resident_bytes() - begin
    begin = _resident_bytes()
    recommender = Recommender.load(model)
    search = Search(recommender.model)
    histories = sample_histories(recommender, ASKED)
    single = [histories.rows(np.array([row])) for row in range(len(histories))]
    may_be_seen = recommender.config.include_seen

    def ask(number: int) -> None:
        allowed_I = np.ones(recommender.model.num_items + 1, dtype=bool)
        allowed_I[[PADDING_INDEX] if may_be_seen else [PADDING_INDEX, *single[number].seen()[1]]] = False
        search.search(single[number], [allowed_I], [None])[0].best(CUTOFF)

    answer_ms = _median_ms(ask, len(single))
    costs = Costs(_tensor_bytes(model), _resident_bytes() - begin, answer_ms)
    if session is None or graph is None:
        return costs
    assert isinstance(recommender.model, Weave)
    inputs = [graph_inputs(recommender.model, one, not may_be_seen) for one in single]
    return replace(
        costs,
        graph_bytes=sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*")),
        graph_resident_bytes=graph_resident_bytes,
        graph_ms=_median_ms(lambda number: session.run(None, inputs[number]), len(single)),
    )


def _tensor_bytes(model: Path) -> int:
    tensors = current_folder(model).glob("*.safetensors")
    return sum(path.stat().st_size for path in tensors if path.name != MOMENTS_NAME)


def _any_input(session: Any) -> dict[str, np.ndarray]:
    """Return a history of the first item alone."""
    return {
        one.name: np.ones([1] * len(one.shape), np.int64 if one.type == "tensor(int64)" else np.float64)
        for one in session.get_inputs()
    }


def _median_ms(ask: Callable[[int], object], count: int) -> float:
    """Return the processor time of an answer: what else the machine does meanwhile is not counted."""
    for number in range(min(20, count)):  # the first answers wait for memory and caches
        ask(number)
    took = []
    for number in range(count):
        began = time.thread_time()
        ask(number)
        took.append(time.thread_time() - began)
    return 1_000 * float(np.median(took))


def _resident_bytes() -> int:
    """Return what this process holds in memory now; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure_here(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))))
