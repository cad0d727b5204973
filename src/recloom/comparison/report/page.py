"""A comparison -> one page that opens without a network."""

import json
from datetime import UTC, datetime

import altair as alt
import tomli_w
import vl_convert
from jinja2 import Environment, PackageLoader

from recloom.comparison.comparing import Comparison
from recloom.comparison.report import plots, tables


def page(comparison: Comparison) -> str:
    """Return the whole page: HTML with its style, its charts and the code that draws them."""
    charts = plots.charts(comparison)
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            comparison=comparison,
            headline=_headline(comparison),
            main=tables.main_rows(comparison),
            every=tables.all_rows(comparison),
            pairs=tables.pair_rows(comparison),
            windows=tables.window_rows(comparison) if comparison.windows else None,
            findings=[*comparison.findings, *(f for result in comparison.models for f in result.findings)],
            charts=[(number, title, charts[title]) for number, title in enumerate(charts)],
            # What is written into a script must not be able to end it.
            specs=json.dumps(list(charts.values()), ensure_ascii=False).replace("<", "\\u003c"),
            library=chart_library(),
            settings={r.label: tomli_w.dumps(_without_none(r.settings)) for r in comparison.models if r.settings},
            split=tomli_w.dumps({"split": _without_none(comparison.split)}),
            day=_day,
        )
    )


def _headline(comparison: Comparison) -> str:
    """Say in a sentence who is best, by how much, and whether that is more than chance."""
    done = [result for result in comparison.models if result.error is None]
    if not done:
        return "No model could be fitted; the table says why."
    best, main = done[0], comparison.main_metric
    metric = best.metrics[main]
    sentence = f"{best.label} is best with {main} {metric.mean:.4f} ({metric.low:.4f} to {metric.high:.4f})"
    ties = [pair.second for pair in comparison.pairs if pair.first == best.label and pair.verdict == "tie"]
    if len(done) == 1:
        return f"{sentence}."
    if ties:
        return (
            f"{sentence}, but {', '.join(ties)} cannot be told apart from it on these {comparison.num_cases:,} users."
        )
    runner_up = done[1].metrics[main].mean
    more = f"{100 * (metric.mean / runner_up - 1):.0f} % above {done[1].label}" if runner_up > 0 else ""
    return f"{sentence}, {more}: more than chance on these {comparison.num_cases:,} users."


def environment() -> Environment:
    """Return what reads the templates of pages, and the style that all of them share."""
    return Environment(
        # Titles are anybody's. jinja2's select_autoescape would not know the template's ending for HTML.
        loader=PackageLoader("recloom.comparison.report"),
        autoescape=True,
        trim_blocks=True,
    )


def chart_library() -> str:
    """Return the code that draws charts, in the version that they are written for."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])  # as the library spells it: 6.1
    return vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg] # it has a default


def _without_none(table: dict) -> dict:  # type: ignore[type-arg]
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in table.items()
        if value is not None
    }


def _day(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
