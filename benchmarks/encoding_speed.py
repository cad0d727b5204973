"""Time recloom's reading of item titles against SentenceTransformer.encode: same model, texts and cores.

Run it on a quiet machine: python benchmarks/encoding_speed.py. It writes encoding-speed.md beside itself.
The data, amazon-beauty-2014, is looked for in ../shared/data beside the repository.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import polars as pl
import torch
import transformers
from sentence_transformers import SentenceTransformer

from recloom.encoders import Encoder, encode_texts, item_texts, load_encoder
from recloom.encoders.packaged import minilm_folder

HERE = Path(__file__).parent
ITEMS = HERE.parent.parent / "shared" / "data" / "amazon-beauty-2014" / "items.csv.gz"
MAX_TOKENS = 128
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "numpy")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sample", type=int, default=3000, help="titles of the runs that alternate")
    options.add_argument("--pairs", type=int, default=3, help="how often they alternate")
    arguments = options.parse_args()
    if not ITEMS.exists():
        sys.exit(f"{ITEMS} is not there; put amazon-beauty-2014 into ../shared/data beside the repository")
    transformers.utils.logging.disable_progress_bar()
    texts = list(dict.fromkeys(text for text in item_texts(pl.read_csv(ITEMS)) if text))
    other = SentenceTransformer(str(minilm_folder()), device="cpu")
    other.max_seq_length = MAX_TOKENS
    ours, int8 = (load_encoder("minilm", max_tokens=MAX_TOKENS, int8=on) for on in (False, True))
    readers = {
        "sentence-transformers": lambda texts: other.encode(list(texts), show_progress_bar=False),
        "recloom fp32": ours.encode,
        "recloom int8": int8.encode,
    }
    for read in readers.values():
        read(texts[:200])  # loads what is loaded late, and warms up
    sample = texts[:: max(1, len(texts) // arguments.sample)][: arguments.sample]
    alternating = [{name: timed(read, sample)[0] for name, read in readers.items()} for _ in range(arguments.pairs)]
    whole = {name: timed(read, texts) for name, read in readers.items()}
    page = report(alternating, len(sample), whole, len(texts), second_run(ours, texts))
    (HERE / "encoding-speed.md").write_text(page, encoding="utf-8")
    print(page)


def timed(read: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> tuple[float, np.ndarray]:
    """Return the seconds it takes to read the texts, and their vectors."""
    began = time.perf_counter()
    vectors = np.asarray(read(texts))
    return time.perf_counter() - began, vectors


def second_run(encoder: Encoder, texts: Sequence[str]) -> tuple[float, float]:
    """Return the seconds to load the encoder and read cached texts: all the same, and with one new text."""
    with TemporaryDirectory() as folder:
        cache = Path(folder) / "embeddings.h5"
        encode_texts(encoder, texts, cache=cache)

        def again(texts: Sequence[str]) -> np.ndarray:
            return encode_texts(load_encoder("minilm", max_tokens=MAX_TOKENS), texts, cache=cache)

        return timed(again, texts)[0], timed(again, [*texts, "an item of today"])[0]


def report(
    alternating: list[dict[str, float]],
    sample_size: int,
    whole: dict[str, tuple[float, np.ndarray]],
    num_texts: int,
    again: tuple[float, float],
) -> str:
    seconds, vectors = whole["sentence-transformers"]
    lines = [
        "# Reading item titles",
        "",
        f"The {num_texts:,} different titles of amazon-beauty-2014, read by the packaged all-MiniLM-L6-v2 with at most",
        f"{MAX_TOKENS} tokens each, tokenising included; mean pooling and normalisation, as the model's own pipeline",
        "says. sentence-transformers runs with its defaults. Ratio: its time over ours. By `encoding_speed.py`.",
        "",
        f"| reader | seconds, all {num_texts:,} | ratio | median ratio of {len(alternating)} alternating runs on"
        f" {sample_size:,} (least, most) | cosine to sentence-transformers: mean, least |",
        "|---|---|---|---|---|",
    ]
    for name, (own, own_vectors) in whole.items():
        ratios = [run["sentence-transformers"] / run[name] for run in alternating]
        cosines = (vectors * own_vectors).sum(axis=1)
        lines.append(
            f"| {name} | {own:.1f} | {seconds / own:.2f} | {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f}, {max(ratios):.2f}) | {cosines.mean():.5f}, {cosines.min():.5f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"A second run, every title in the cache: {again[0]:.2f} s with loading the encoder and verifying weights.",
            f"With one new title: {again[1]:.2f} s, most of it for loading the language model.",
            "",
            f"Machine: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads,"
            f" {torch.backends.cpu.get_cpu_capability()}; {platform.system()}, Python {platform.python_version()}.",
            f"Versions: {', '.join(f'{package} {version(package)}' for package in PACKAGES)}.",
            "",
        ]
    )


def processor() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
