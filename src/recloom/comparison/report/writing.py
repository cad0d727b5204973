"""A comparison -> one file, in the format its name asks for."""

import json
from pathlib import Path

from recloom.comparison.comparing import Comparison
from recloom.comparison.report.tables import latex, markdown
from recloom.errors import ConfigError
from recloom.files import replacing

FORMATS = (".html", ".md", ".tex", ".json")


def write_report(comparison: Comparison, path: str | Path) -> None:
    """Write a page (.html), tables to paste (.md, .tex) or everything for machines (.json).

    Raises:
        ConfigError: The name ends in something else.
    """
    path = Path(path)
    if path.suffix == ".html":
        from recloom.comparison.report.page import page  # what draws takes a second to import

        text = page(comparison)
    elif path.suffix == ".md":
        text = markdown(comparison)
    elif path.suffix == ".tex":
        text = latex(comparison)
    elif path.suffix == ".json":
        text = json.dumps(comparison.to_json(), indent=1, ensure_ascii=False)
    else:
        raise ConfigError(f"a report ends in {', '.join(FORMATS)}; {path} does not")
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
