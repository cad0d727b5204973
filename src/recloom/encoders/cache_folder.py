"""Where recloom keeps models it converted."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for converted models: RECLOOM_CACHE, else ~/.cache/recloom."""
    return Path(os.environ.get("RECLOOM_CACHE") or Path.home() / ".cache" / "recloom")
