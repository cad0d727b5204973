"""A model folder -> a smaller one, and what that saved and cost."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from recloom.compression.folding import fold_text
from recloom.compression.measuring import CUTOFF, Costs, Stored, measure
from recloom.compression.members import weaves_of
from recloom.compression.onnx_export import can_export, write_graph
from recloom.compression.pruning import prune
from recloom.compression.pruning_shards import prune_shards
from recloom.compression.quantizing import quantize
from recloom.compression.teaching import distill, fine_tune
from recloom.config import suggestion
from recloom.dataset import split_dataset
from recloom.errors import ConfigError
from recloom.evaluation.significance import PairedDifference, paired_difference
from recloom.files import replacing, write_checksums
from recloom.models import Sharded
from recloom.recommender import Recommender, check_replaceable, write_record
from recloom.tensor_files import save_compact
from recloom.training import Progress

METHODS = ("distill", "prune", "pq", "int8")
METRIC = f"NDCG@{CUTOFF}"


@dataclass(frozen=True)
class Compression:
    """What a model was, what it became, and how they compare."""

    methods: list[str]
    before: Costs
    after: Costs
    ndcg_before: float | None = None
    """Over the test cases; None where the model has seen everything, so that there are none."""
    ndcg_after: float | None = None
    difference: PairedDifference | None = None
    """After minus before, over the same test cases."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an effect without spread is None, for which JSON has a word."""
        plain = asdict(self)
        if self.difference is not None and not np.isfinite(self.difference.effect_size):
            plain["difference"]["effect_size"] = None
        return plain


def compress(
    model: Path, out: Path, methods: Sequence[str], progress: Progress | None = None, also: Sequence[Path] = ()
) -> Compression:
    """Write a smaller model, and measure both.

    Args:
        model: Folder of a fitted model.
        out: Folder to write to, which takes the place of an earlier model there.
        methods: Of `METHODS`, in the order in which they are applied; `pq` and `int8`
            are forms in which the rest is stored.
        progress: Told about training.
        also: Folders of further models, which teach together with the first in `distill`.

    Raises:
        ConfigError: A method is unknown or cannot be applied, or the model was compressed already.
    """
    _check(methods)
    if also and "distill" not in methods:
        raise ConfigError("--also names further teachers, so it goes with --method distill")
    recommender = Recommender.load(model)
    if done := recommender.run.lineage.get("compression"):
        raise ConfigError(
            f"{model} was compressed already ({', '.join(done['methods'])}); compress the model it came from, with all"
            " methods at once: --method distill --method int8"
        )
    check_replaceable(out)
    if out.resolve() == model.resolve():
        raise ConfigError(f"--out {out} is the model itself, which would be lost; choose another folder")
    ndcg_before_B = _ndcg(recommender)
    smaller = _without_memory(_smaller(recommender, methods, progress, [Recommender.load(o) for o in also]))
    with replacing(out) as beside:
        _write(smaller, beside, methods)
        written = Recommender.load(beside)
        ndcg_after_B = _ndcg(written)
        # Read anew: some methods change the model that they are given.
        before, after = _measured((Recommender.load(model), model), (written, beside))
        compression = Compression(list(methods), before, after)
        if ndcg_before_B is not None and ndcg_after_B is not None:
            compression = replace(
                compression,
                ndcg_before=float(ndcg_before_B.mean()),
                ndcg_after=float(ndcg_after_B.mean()),
                difference=paired_difference(ndcg_after_B, ndcg_before_B),
            )
        lineage = smaller.run.lineage | {"compression": compression.to_json()}
        write_record(replace(smaller.run, lineage=lineage), beside)
        write_checksums(beside)
    return compression


def _check(methods: Sequence[str]) -> None:
    if not methods:
        raise ConfigError(f"no method to compress by; choose {', '.join(METHODS)}")
    for name in methods:
        if name not in METHODS:
            raise ConfigError(f"unknown method {name!r}; {suggestion(name, METHODS)}")
    if len(set(methods)) < len(methods):
        raise ConfigError(f"--method {' --method '.join(methods)} names a method twice; once is enough")
    if "distill" in methods and "prune" in methods:
        raise ConfigError("distilling and pruning both make the model smaller; choose one of them, and int8 with it")


def _smaller(
    recommender: Recommender, methods: Sequence[str], progress: Progress | None, also: Sequence[Recommender]
) -> Recommender:
    """Apply the methods that change the model."""
    if "distill" in methods:
        smaller = fold_text(distill(recommender, progress, also))
        return quantize(smaller) if "pq" in methods else smaller
    if not weaves_of(recommender.model):
        raise ConfigError(
            f"{recommender.config.model_name} cannot be compressed by {', '.join(methods)}, weave can; distill it, or"
            " fit a weave"
        )
    if isinstance(recommender.model, Sharded) and "pq" in methods:
        raise ConfigError(
            "a model of shards has as many tables of item vectors as shards, and pq makes codes of one; use --method"
            " int8, or distill it into one model first"
        )
    if "prune" in methods and isinstance(recommender.model, Sharded):
        recommender = prune_shards(recommender, progress)
    elif "prune" in methods:
        recommender = fine_tune(recommender, prune(recommender), progress)
    smaller = fold_text(recommender)
    return quantize(smaller) if "pq" in methods else smaller


def _without_memory(smaller: Recommender) -> Recommender:
    """Return a recommender that no longer holds what the optimiser remembers, twice as large as the model."""
    return Recommender(smaller.dataset, smaller.model, smaller.config, smaller.text, smaller.counts_I, smaller.run)


def _write(recommender: Recommender, folder: Path, methods: Sequence[str]) -> None:
    """Save a model, then store its tensors in fewer bytes; what popularity makes of item vectors is not kept twice."""
    recommender.save(folder)
    for name in ("model.safetensors", "item_text.safetensors"):
        if (folder / name).exists():
            save_compact(load_file(folder / name), folder / name, int8="int8" in methods)
    counts = load_file(folder / "item_vectors.safetensors")
    if "int8" in methods or "pq" in methods:
        counts.pop("vectors")  # one product away, and as large again as the model
    save_compact(counts, folder / "item_vectors.safetensors", int8=False)
    write_checksums(folder)


def _measured(*models: tuple[Recommender, Path]) -> tuple[Costs, Costs]:
    """Measure a model and what it became, each with its graph where it can have one."""
    with tempfile.TemporaryDirectory() as temporary:
        stored = []
        for number, (recommender, folder) in enumerate(models):
            graph = None
            if weaves_of(recommender.model) and can_export():
                graph = Path(temporary) / str(number) / "model.onnx"
                graph.parent.mkdir()
                write_graph(recommender.model, graph)
            stored.append(Stored(folder, graph))
        before, after = stored
        return measure(before, after)


def _ndcg(recommender: Recommender) -> np.ndarray | None:
    """Return the metric of every test case, shape (B,); None where there is none."""
    split = recommender.config.split
    if split.everything or len(split_dataset(recommender.dataset, split).test) == 0:
        return None
    return recommender.evaluate([CUTOFF]).values[METRIC]
