"""`recloom doctor`: whether this installation can do what recloom promises, and what to do where it cannot."""

import importlib.util
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import typer
from rich.table import Table

import recloom
from recloom.cli.console import console
from recloom.encoders import load_encoder
from recloom.errors import InputError

_EXTRAS = {
    "fastapi": "serve",
    "faiss": "ann",
    "implicit": "mf",
    "peft": "adapt",
    "onnxruntime": "onnx",
    "sentence_transformers": "bench",
}
_CORE = ("torch", "transformers", "polars", "numpy", "h5py", "safetensors", "typer", "rich")
_GIGABYTE = 1e9
_ROOM_WANTED = 2 * _GIGABYTE


def doctor() -> None:
    """Check the installation, the packaged language models and the machine, and say what to do."""
    table = Table("what", "found", "what to do")
    table.add_row("recloom", recloom.__version__, "")
    for package in _CORE:
        table.add_row(package, *_version(package))
    failed = False
    for name in ("minilm", "multilingual", "hashing"):
        found, advice = _try_encoder(name)
        failed |= bool(advice) and name == "minilm"
        table.add_row(f"encoder {name}", found, advice)
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


def _install(extra: str) -> str:
    return f"optional: pip install 'recloom[{extra}]'"
