"""A fitted model -> a folder that ONNX Runtime alone can serve: a graph, and a table of what its indices stand for.

Shapes: B histories, K length of lists, N histories of the sample.
"""

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recloom.compression.members import weaves_of
from recloom.dataset import PADDING_INDEX, CategoryColumn, Dataset, Histories, gather
from recloom.encoders.onnx_int8 import quiet
from recloom.errors import ConfigError, MissingExtraError, RecloomError
from recloom.files import replacing, write_checksums
from recloom.models import Model, Ranker
from recloom.models.circumstances import Circumstances
from recloom.recommender import Recommender
from recloom.version import __version__

GRAPH, CATALOGUE = "model.onnx", "catalogue.json"
LIST_LENGTH = 100
"""Items that the graph answers; whoever wants fewer reads the first."""
SAMPLE = 256
"""Histories that are asked of the model and of the graph."""
BATCH_SIZES = (1, 2, 7, 32)
TOLERANCE = 1e-4
"""Largest difference of scores, as a share of the largest score (at least 1)."""
LARGEST_FILE = 2**30
"""Bytes of weights that still go into the graph's own file; protocol buffers end at 2 GiB."""
INPUTS = {
    "item_index": "int64 (batch, length): items of the history as positions in `items`, oldest first, the newest"
    " `max_length` at most; rows that are shorter are filled up with 0 at the end",
    "timestamp": "int64 (batch, length): UTC seconds of each interaction, 0 where unknown",
    "behavior_index": "int64 (batch, length): positions in `behaviors`; `usual_behavior` where unknown",
    "user_index": "int64 (batch,): position in `users`, 0 for somebody unknown",
    "request_timestamp": "int64 (batch,): UTC seconds at which the next item is asked for, 0 where unknown",
    "excluded": "int64 (batch, any): items that may not be shown, filled up with 0; the whole history, unless"
    " `include_seen`",
}


@dataclass(frozen=True)
class Parity:
    """How far a graph's answers are from the model's."""

    histories: int
    """How many were asked, of different lengths, in batches of different sizes."""
    largest_difference: float
    """Of a score."""
    tolerance: float
    identical_top_10: int
    """Of how many the first ten items are the same, in the same order."""
    near_ties: int
    """Of how many they differ only among items whose scores are within the tolerance of each other."""

    @property
    def holds(self) -> bool:
        """Whether the graph answers as the model does, but for the last digits of single precision."""
        is_near = self.largest_difference <= self.tolerance
        return is_near and self.identical_top_10 + self.near_ties == self.histories


def export_onnx(recommender: Recommender, folder: Path) -> Parity:
    """Write a graph that answers as a model does, and hold it against the model.

    Args:
        recommender: Of the model `weave`, with any network, in shards too.
        folder: Takes the place of an earlier export there.

    Raises:
        MissingExtraError: ONNX Runtime or the exporter is not installed.
        ConfigError: It is another model, or the folder holds something else.
        RecloomError: The graph's answers are not the model's; the folder is left as it was.
    """
    if not can_export():
        raise MissingExtraError("onnx", "exporting a model")
    if not weaves_of(recommender.model):
        raise ConfigError(
            f"{recommender.config.model_name} cannot be exported, weave can; fit it with: recloom fit DATASET --out"
            " MODEL --model weave"
        )
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / CATALOGUE).exists()):
        raise ConfigError(f"{folder} holds something that is not an export, and would be replaced; choose another")
    with replacing(folder) as beside:
        beside.mkdir()
        write_graph(recommender.model, beside / GRAPH)
        parity = check_parity(recommender, beside / GRAPH)
        if not parity.holds:
            raise RecloomError(
                f"the exported graph does not answer as the model does: scores differ by up to"
                f" {parity.largest_difference:.2g}, and {parity.histories - parity.identical_top_10} of"
                f" {parity.histories} lists; nothing was written, please report this with the versions of torch,"
                " onnxscript and onnxruntime"
            )
        table = describe(recommender) | {"parity": asdict(parity)}
        (beside / CATALOGUE).write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")
        write_checksums(beside)
    return parity


def can_export() -> bool:
    """Tell whether the extra `onnx` is installed."""
    return all(importlib.util.find_spec(module) for module in ("onnx", "onnxscript", "onnxruntime"))


def describe(recommender: Recommender) -> dict[str, Any]:
    """Return what somebody without recloom needs to know to fill in the inputs and to read the answer."""
    dataset, model = recommender.dataset, recommender.model
    words, numbers = _columns(model)
    order = np.lexsort((np.arange(len(recommender.counts_I)), -recommender.counts_I))
    return {
        "model": "weave",
        "recloom": __version__,
        "max_length": model.max_length,
        "list_length": min(LIST_LENGTH, model.num_items),
        "include_seen": recommender.config.include_seen,
        "inputs": INPUTS
        | {f"context_{name}": f"int64 (batch, length): positions in `context`, {name}; 0 unknown" for name in words}
        | {f"context_{name}": "float64 (batch, length): NaN where unknown" for name in numbers}
        | {f"request_{name}": f"int64 (batch,): positions in `context`, {name}; 0 where unknown" for name in words}
        | {f"request_{name}": "float64 (batch,): NaN where unknown" for name in numbers},
        "outputs": {
            "recommended": "int64 (batch, list_length): positions in `items`, best first; a history without a known"
            " item has no answer, show `popular` instead",
            "score": "float32 (batch, list_length): -inf where no more items may be shown",
        },
        "items": ["", *dataset.items.ids],
        "titles": recommender.titles,
        "popular": [int(row) for row in order[order != PADDING_INDEX][:LIST_LENGTH]],
        "behaviors": ["", *dataset.behavior.vocabulary.ids],
        "usual_behavior": int(np.bincount(dataset.behavior.values, minlength=2).argmax()),
        "context": {name: ["", *_vocabulary(dataset, name)] for name in words},
        "users": ["", *dataset.users.ids] if _circumstances(model)._codes_by_user else [],
    }


def graph_inputs(model: Model, histories: Histories, excluded: bool) -> dict[str, np.ndarray]:
    """Return a batch of histories as the graph wants them, by the names of its inputs, in their order."""
    words, numbers = _columns(model)
    rows, items = histories.seen()
    size_B = np.bincount(rows, minlength=len(histories)) if excluded else np.zeros(len(histories), dtype=np.int64)
    excluded_BS = np.zeros((len(histories), int(size_B.max(initial=0))), dtype=np.int64)
    if excluded:
        excluded_BS[rows, np.arange(len(rows)) - np.repeat(np.cumsum(size_B) - size_B, size_B)] = items
    context, request = histories.context_BL, histories.request.context_B
    return {
        "item_index": histories.item_index_BL.astype(np.int64),
        "timestamp": histories.timestamp_BL,
        "behavior_index": histories.behavior_index_BL.astype(np.int64),
        **{f"context_{name}": context[name].astype(np.int64) for name in words},
        **{f"context_{name}": context[name].astype(np.float64) for name in numbers},
        "user_index": histories.user_index_B.astype(np.int64),
        "request_timestamp": histories.request.timestamp_B.astype(np.int64),
        **{f"request_{name}": request[name].astype(np.int64) for name in words},
        **{f"request_{name}": request[name].astype(np.float64) for name in numbers},
        "excluded": excluded_BS,
    }


def check_parity(recommender: Recommender, graph: Path) -> Parity:
    """Ask the model and its graph for the same lists."""
    model, include_seen = recommender.model, recommender.config.include_seen
    session = open_session(graph)
    ranker = Ranker(model)
    histories = sample_histories(recommender, SAMPLE)
    largest, most, identical, near, begin, number = 0.0, 1.0, 0, 0, 0, 0
    while begin < len(histories):
        end = min(begin + BATCH_SIZES[number % len(BATCH_SIZES)], len(histories))
        batch = histories.rows(np.arange(begin, end))
        item_BK, score_BK = session.run(None, graph_inputs(model, batch, not include_seen))
        expected_BI = ranker.scores(batch).numpy()
        expected_BK = np.take_along_axis(expected_BI, item_BK, axis=1)
        right = ranker.rank(batch, 10, include_seen)
        possible_BK = score_BK > -np.inf
        difference_N = np.abs(score_BK[possible_BK] - expected_BK[possible_BK])
        largest = max(largest, float(difference_N.max(initial=0.0)))
        most = max(most, float(np.abs(expected_BI[np.isfinite(expected_BI)]).max()))
        tens = np.where(possible_BK, item_BK, PADDING_INDEX)[:, :10]
        same_B = (tens == right.item_index_BK[:, : tens.shape[1]]).all(axis=1)
        # Lists of other items are as good where the model gives each place the same score, as near as it can tell.
        ten_scores = np.where(possible_BK, expected_BK, -np.inf)[:, :10]
        alike_B = np.isclose(ten_scores, right.score_BK[:, : tens.shape[1]], rtol=0, atol=TOLERANCE * most).all(axis=1)
        identical += int(same_B.sum())
        near += int((alike_B & ~same_B).sum())
        begin, number = end, number + 1
    return Parity(len(histories), largest, TOLERANCE * most, identical, near)


def sample_histories(recommender: Recommender, size: int) -> Histories:
    """Return histories of users of the dataset, cut at different places, every second asked for at a known time."""
    dataset, rng = recommender.dataset, np.random.default_rng(0)
    offsets = dataset.user_offsets
    users = np.flatnonzero(np.diff(offsets) > 0)
    users = users[np.linspace(0, len(users) - 1, min(size, len(users))).astype(int)]
    target = rng.integers(offsets[users], offsets[users + 1])
    end = np.maximum(target, offsets[users] + 1)
    told = ("timestamp", *recommender.config.split.told)
    histories = gather(dataset, offsets[users], end, recommender.model.max_length, np.maximum(target, end - 1), told)
    request_B = np.where(np.arange(len(users)) % 2, histories.request.timestamp_B, 0)
    histories.request.timestamp_B[:] = request_B
    return histories


def open_session(graph: Path) -> Any:
    """Open a graph for answering on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def write_graph(model: Model, target: Path) -> None:
    """Write the graph of a model, without holding it against the model."""
    import torch

    from recloom.compression.onnx_graph import WeaveGraph

    graph = WeaveGraph(model, min(LIST_LENGTH, model.num_items))
    batch, length, hidden = (torch.export.Dim(name) for name in ("batch", "length", "excluded"))
    words, numbers = _columns(model)

    # The exporter needs some values of the right kind; sizes of 0 and 1 would be taken for fixed, and one tensor that
    # is given twice for one input.
    def steps(dtype: torch.dtype = torch.long) -> torch.Tensor:
        return torch.ones(3, 5, dtype=dtype)

    def each(dtype: torch.dtype = torch.long) -> torch.Tensor:
        return torch.ones(3, dtype=dtype)

    context_BL = [steps() for _ in words] + [steps(torch.double) for _ in numbers]
    context_B = [each() for _ in words] + [each(torch.double) for _ in numbers]
    both, one = {0: batch, 1: length}, {0: batch}
    by_column = [both] * len(context_BL), [one] * len(context_B)
    shapes = (both, both, both, by_column[0], one, one, by_column[1], {0: batch, 1: hidden})
    with quiet():
        torch.onnx.export(
            graph,
            (steps(), steps(), steps(), context_BL, each(), each(), context_B, torch.ones(3, 2, dtype=torch.long)),
            target,
            input_names=_input_names(words + numbers),
            output_names=["recommended", "score"],
            dynamic_shapes=shapes,
            custom_translation_table={torch.ops.aten.frexp.Tensor: _frexp},
            dynamo=True,
            external_data=sum(b.nbytes for b in graph.buffers()) > LARGEST_FILE,
            verbose=False,
        )


def _input_names(columns: list[str]) -> list[str]:
    return [
        *("item_index", "timestamp", "behavior_index", *(f"context_{name}" for name in columns)),
        *("user_index", "request_timestamp", *(f"request_{name}" for name in columns), "excluded"),
    ]


def _frexp(values: Any) -> tuple[Any, Any]:
    """Translate `frexp` for whole numbers from 0 to 2^31, of which the exponent alone is used: ONNX has none."""
    import onnxscript

    op: Any = onnxscript.opset20  # its types are those of a script, not of what it calls

    powers = op.CastLike(op.Constant(value_floats=[2.0**power for power in range(31)]), values)
    reached = op.GreaterOrEqual(op.Unsqueeze(values, op.Constant(value_ints=[-1])), powers)
    exponent = op.ReduceSum(op.Cast(reached, to=6), op.Constant(value_ints=[-1]), keepdims=0)  # 6: int32
    return values, exponent


def _columns(model: Model) -> tuple[list[str], list[str]]:
    """Return the context columns of words and of numbers that a model reads."""
    circumstances = _circumstances(model)
    return circumstances._word_columns, circumstances._number_columns


def _circumstances(model: Model) -> Circumstances:
    return weaves_of(model)[0]._towers[0].circumstances  # all members read the same columns


def _vocabulary(dataset: Dataset, name: str) -> list[str]:
    column = dataset.context[name]
    assert isinstance(column, CategoryColumn)
    return list(column.vocabulary.ids)
