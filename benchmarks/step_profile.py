"""Where the time of a training step goes, and how far it is from what the machine's matrix products allow.

    python benchmarks/step_profile.py DATASET [--protocol leave-one-out] [--steps 60] [--set model.network=sasrec]

Trains the default model for some steps under torch's profiler. The limit is measured in the same run, before and after:
the best rate of a square matrix product in the threads at hand.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from recloom import Dataset
from recloom.config import parse_settings
from recloom.dataset import gather, split_dataset, windows
from recloom.fitting import new_model, read_catalogue
from recloom.models import TrainingData
from recloom.run_config import RunConfig
from recloom.training import hardware, versions
from recloom.training.batches import shuffled_batches
from recloom.training.optimization import Optimization

# What the names of operations contain, by kind.
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "linear", "mkldnn", "baddbmm", "scaled_dot_product", "flash_attention"),
    "recurrence": ("gru", "lstm", "rnn"),
    "rows of tables": ("index", "embedding", "gather", "scatter", "unique", "masked_select"),
    "optimizer and average": ("_foreach", "_fused", "lerp", "adam", "linalg_vector_norm"),
    "softmax and elementwise": (
        "exp", "logsumexp", "sum", "mul", "add", "sub", "div", "where", "masked_fill", "dropout", "bernoulli", "random",
        "sigmoid", "tanh", "silu", "norm", "clamp", "pow", "sqrt", "neg", "fill",
    ),
}  # fmt: skip


def kind_of(name: str) -> str:
    plain = name.removeprefix("aten::").lower()
    return next((kind for kind, words in KINDS.items() if any(word in plain for word in words)), "the rest")


def limit(size: int = 1_024, repeats: int = 12) -> float:
    """Return the best rate of a matrix product, in floating-point operations a second."""
    first, second = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        first @ second
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--protocol", default="leave-one-out")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--detail", action="store_true", help="single operations too")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    dataset = Dataset.open(options.dataset)
    settings = parse_settings([f"split.protocol={options.protocol}", *options.settings])
    config = RunConfig.resolve("weave", dataset, settings)
    split = split_dataset(dataset, config.split)
    data = TrainingData(dataset, split.train)
    model = new_model(dataset, config, read_catalogue(dataset, config, None)[0])
    model.prepare(data)
    training = config.training
    optimization = Optimization(
        model,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
        averaging=training.averaging,
    )
    start_W, end_W = windows(data.segments, model.max_length, training.stride)
    batches = list(shuffled_batches(end_W - start_W, training.batch_size, np.random.default_rng(0)))
    model.train()

    def step(number: int) -> tuple[int, int]:
        batch = batches[number % len(batches)]
        histories = gather(dataset, start_W[batch], end_W[batch], model.max_length + 1)
        optimization.step(model.loss(histories))
        return int(histories.length_B.sum()), histories.item_index_BL.size

    for number in range(5):
        step(number)
    before = limit()
    began = time.perf_counter()
    filled = [step(number) for number in range(5, 5 + options.steps)]
    seconds = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
        for number in range(5, 5 + options.steps):
            step(number)
    rate = max(before, limit())
    by_kind, flops = defaultdict(float), 0
    for event in profiler.key_averages():
        by_kind[kind_of(event.key)] += event.self_cpu_time_total
        flops += event.flops
    if options.detail:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))
    total = sum(by_kind.values())
    print(f"{options.dataset.name}: {config.model.network}, width {config.model.embedding_dim}, {options.steps} steps")
    print(f"{1_000 * seconds / options.steps:.1f} ms a step; {sum(a for a, _ in filled) / seconds:,.0f} interactions/s")
    print(
        f"{sum(a for a, _ in filled) / sum(b for _, b in filled):.1%} of what a step reads is interactions, not padding"
    )
    for kind, microseconds in sorted(by_kind.items(), key=lambda pair: -pair[1]):
        print(f"| {kind} | {microseconds / total:.1%} |")
    print(f"limit {rate / 1e9:.0f} GFLOP/s; matrix products of a step: {flops / 1e9 / options.steps:.2f} GFLOP, which")
    print(f"take {1_000 * flops / options.steps / rate:.1f} ms at the limit")
    print(versions(), hardware())


if __name__ == "__main__":
    main()
