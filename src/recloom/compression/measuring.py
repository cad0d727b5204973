"""Model folders -> what they cost to keep and to ask: run as processes of their own, so that nothing else is counted.

python -m recloom.compression.measuring MODEL GRAPH [MODEL GRAPH ...]          # - where there is no graph
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recloom.compression.onnx_export import graph_inputs, open_session, sample_histories
from recloom.dataset import PADDING_INDEX
from recloom.errors import RecloomError
from recloom.files import current_folder
from recloom.recommender import MOMENTS_NAME, Recommender
from recloom.retrieval.search import Search

ASKED, TRIES = 100, 5
"""Histories, asked one at a time, so often in a row; the least of the tries and the median of the histories count."""
WARM_UP = 10
"""Histories that are asked beforehand: the first answers wait for memory."""
CUTOFF = 10
NO_GRAPH = "-"


@dataclass(frozen=True)
class Costs:
    """What a model costs, dataset and language model left out."""

    disk_bytes: int
    """Of all tensors that answering needs."""
    resident_bytes: int
    """By how much the process grew, from before model and dataset were loaded until it answered."""
    answer_ms: float
    """From a history to its ten best items as a service does it: processor time for one history."""
    graph_bytes: int | None = None
    """Of the exported graph; None where there is none."""
    graph_resident_bytes: int | None = None
    """By how much the process grew, from before the graph was opened in ONNX Runtime until it answered."""
    graph_ms: float | None = None
    """From the same histories to the same items in ONNX Runtime, titles left out."""


@dataclass(frozen=True)
class Stored:
    """A model on disk."""

    model: Path
    graph: Path | None
    """Its exported graph, where there is one."""


def measure(before: Stored, after: Stored) -> tuple[Costs, Costs]:
    """Measure two models, each in a fresh process, and then both in turns in one.

    What an answer takes differs by a third from one minute to the next on a machine that does other things, so times
    that were not taken in turns cannot be compared.

    Raises:
        RecloomError: A process failed.
    """
    (sizes,) = _in_a_process([before])
    costs, compared = _in_a_process([after, before])
    return replace(sizes, answer_ms=compared.answer_ms, graph_ms=compared.graph_ms), costs


def _in_a_process(models: Sequence[Stored]) -> list[Costs]:
    """Return the costs of each; sizes and memory are those of the first, alone in its process."""
    named = [(str(one.model), NO_GRAPH if one.graph is None else str(one.graph)) for one in models]
    command = [sys.executable, "-m", "recloom.compression.measuring", *chain(*named)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RecloomError(f"measuring {models[0].model} failed: {reason}")
    return [Costs(**costs) for costs in json.loads(done.stdout)]


Ask = Callable[[int], object]


class _Opened:
    """A model that answers, and what it took to get there."""

    def __init__(self, stored: Stored) -> None:
        self.ask_graph: Ask | None = None
        self._graph_resident_bytes: int | None = None
        session = None
        if stored.graph is not None:
            begin = _resident_bytes()
            session = open_session(stored.graph)
            session.run(None, _any_input(session))
            self._graph_resident_bytes = _resident_bytes() - begin
        self._stored = stored
        self._begin = _resident_bytes()
        recommender = Recommender.load(stored.model)
        search = Search(recommender.model)
        histories = sample_histories(recommender, ASKED)
        single = [histories.rows(np.array([row])) for row in range(len(histories))]
        may_be_seen, num_rows = recommender.config.include_seen, recommender.model.num_items + 1
        self.count = len(single)

        def ask(number: int) -> None:
            allowed_I = np.ones(num_rows, dtype=bool)
            allowed_I[[PADDING_INDEX] if may_be_seen else [PADDING_INDEX, *single[number].seen()[1]]] = False
            search.search(single[number], [allowed_I], [None])[0].best(CUTOFF)

        self.ask: Ask = ask
        if session is not None:
            inputs = [graph_inputs(recommender.model, one, not may_be_seen) for one in single]
            self.ask_graph = lambda number: session.run(None, inputs[number])

    def sizes(self) -> Costs:
        """Return all but times, of a model that was asked and is the only one in its process."""
        for number in range(min(WARM_UP, self.count)):
            self.ask(number)
        resident_bytes, graph = _resident_bytes() - self._begin, self._stored.graph
        graph_bytes = (
            None if graph is None else sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*"))
        )
        return Costs(_tensor_bytes(self._stored.model), resident_bytes, 0.0, graph_bytes, self._graph_resident_bytes)


def _measure_here(models: Sequence[Stored]) -> list[Costs]:
    torch.set_num_threads(1)
    first = _Opened(models[0])
    sizes = first.sizes()
    opened = [first, *map(_Opened, models[1:])]
    answers = _median_ms([one.ask for one in opened], first.count)
    graphs = [one.ask_graph for one in opened if one.ask_graph is not None]
    of_graphs = iter(_median_ms(graphs, first.count))
    return [
        replace(sizes, answer_ms=answer_ms, graph_ms=next(of_graphs) if one.ask_graph is not None else None)
        for one, answer_ms in zip(opened, answers, strict=True)
    ]


def _tensor_bytes(model: Path) -> int:
    tensors = current_folder(model).glob("*.safetensors")
    return sum(path.stat().st_size for path in tensors if path.name != MOMENTS_NAME)


def _any_input(session: Any) -> dict[str, np.ndarray]:
    """Return a history of the first item alone."""
    return {
        one.name: np.ones([1] * len(one.shape), np.int64 if one.type == "tensor(int64)" else np.float64)
        for one in session.get_inputs()
    }


def _median_ms(askers: Sequence[Ask], count: int) -> list[float]:
    """Return the processor time of an answer of each, asked in turns.

    The least of some tries in a row counts: what other programs throw out of the processor's caches meanwhile is
    theirs to answer for.
    """
    took = np.empty((len(askers), count))
    for number in [*range(min(WARM_UP, count)), *range(count)]:
        for place, ask in enumerate(askers):
            took[place, number] = min(_seconds(ask, number) for _ in range(TRIES))
    return [1_000 * float(median) for median in np.median(took, axis=1)]


def _seconds(ask: Ask, number: int) -> float:
    began = time.thread_time()
    ask(number)
    return time.thread_time() - began


def _resident_bytes() -> int:
    """Return what this process holds in memory now; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    words = sys.argv[1:]
    pairs = zip(words[::2], words[1::2], strict=True)
    asked = [Stored(Path(model), None if graph == NO_GRAPH else Path(graph)) for model, graph in pairs]
    print(json.dumps([asdict(costs) for costs in _measure_here(asked)]))
