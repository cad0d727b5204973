"""A backtest -> a page that opens without a network, a table to paste, or everything for machines."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recloom.errors import ConfigError
from recloom.files import replacing
from recloom.lifecycle.backtesting import Backtest, to_json

FORMATS = (".html", ".md", ".json")
HEADS = ("habit", "NDCG@10", "against retraining", "p", "seconds", "of retraining's")
WIDTH, HEIGHT = 440, 280

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ name }}: how often to learn</title>
<style>
{% include "style.css.jinja" %}
</style>
</head>
<body>
{% macro table(heads, rows) %}
<div class="wide"><table>
  <thead><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr></thead>
  <tbody>{% for row in rows %}
    <tr{% if row[0] == advised %} class="best"{% endif %}>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
  {% endfor %}</tbody>
</table></div>
{% endmacro %}
<h1>{{ name }}: how often to learn</h1>
<p class="lead">{{ result.advice }}</p>
{{ table(heads, rows) }}
<p class="soft">{{ result.model }}; {{ result.cases | sum }} questions in {{ result.cases | length }} steps, each a
  person's first interaction in a step, asked before it is learned. Seconds are processor time of learning after the
  first fit, which took {{ "%.1f" % result.fit_seconds }} s and which no habit can do without. Against retraining: the
  mean paired difference and its 95 % bootstrap interval; p: the sign-flip permutation test.</p>
<div class="charts"><div id="chart-0"></div><div id="chart-1"></div></div>
<h2>NDCG@10 at each step</h2>
{{ table(step_heads, step_rows) }}
<script type="module">{{ library | safe }}</script>
<script type="module">
  const specs = {{ specs | safe }};
  specs.forEach((spec, number) => vegaEmbed("#chart-" + number, spec, {actions: false, renderer: "svg"}));
</script>
</body>
</html>
"""


def write_backtest(result: Backtest, path: Path, name: str) -> None:
    """Write a page (.html), tables to paste (.md) or everything for machines (.json).

    Args:
        result: What to write.
        path: Where to.
        name: What to call the data.

    Raises:
        ConfigError: The file's name ends in something else.
    """
    check_format(path)
    if path.suffix == ".html":
        text = _page(result, name)
    elif path.suffix == ".md":
        text = f"{result.advice}\n\n{_markdown(HEADS, rows(result))}\n{_markdown(*_steps(result))}"
    else:
        text = json.dumps(to_json(result), indent=1, ensure_ascii=False)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def check_format(path: Path) -> None:
    """Make sure that a report can be written to a file of that name.

    Raises:
        ConfigError: It cannot.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"a report ends in {', '.join(FORMATS)}; {path} does not")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it, or write elsewhere")


def rows(result: Backtest) -> list[tuple[str, ...]]:
    """Return the table under `HEADS`, the best habit first."""
    lines: list[tuple[str, ...]] = []
    for course in sorted(result.courses, key=lambda course: -course.mean):
        difference, share = result.differences.get(course.habit.name), result.share_of_retraining(course)
        against = f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})" if difference else ""
        p_value = f"{difference.p_value:.3f}" if difference else ""
        seconds, part = f"{course.cost:.1f}", "" if share is None else f"{share:.0%}"
        lines.append((course.habit.name, f"{course.mean:.4f}", against, p_value, seconds, part))
    return lines


def _steps(result: Backtest) -> tuple[list[str], list[tuple[str, ...]]]:
    heads = ["from (UTC)", *(_time(start, "%Y-%m-%d %H:%M") for start in result.starts)]
    lines = [(course.habit.name, *(f"{value:.4f}" for value in course.ndcg_at_10)) for course in result.courses]
    return heads, [*lines, ("people asked", *(f"{number:,}" for number in result.cases))]


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    every = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in every)


def _page(result: Backtest, name: str) -> str:
    # What draws takes a second to import.
    from recloom.comparison.report.page import chart_library, environment

    step_heads, step_rows = _steps(result)
    return (
        environment()
        .from_string(_TEMPLATE)
        .render(
            name=name,
            result=result,
            advised=result.advised.habit.name,
            heads=HEADS,
            rows=rows(result),
            step_heads=step_heads,
            step_rows=step_rows,
            # What is written into a script must not be able to end it.
            specs=json.dumps(_charts(result), ensure_ascii=False).replace("<", "\\u003c"),
            library=chart_library(),
        )
    )


def _charts(result: Backtest) -> list[dict[str, Any]]:
    """Return quality over the steps, and quality against cost, as Vega-Lite."""
    import altair as alt
    import polars as pl

    names = [course.habit.name for course in result.courses]
    colour = alt.Color(
        "habit:N",
        sort=names,
        scale=alt.Scale(scheme="tableau10", domain=names),
        title=None,
        legend=alt.Legend(orient="bottom", columns=3),
    )
    steps = pl.DataFrame(
        [
            {"habit": course.habit.name, "step": _time(start, "%Y-%m-%dT%H:%M:%S"), "quality": value}
            for course in result.courses
            for start, value in zip(result.starts, course.ndcg_at_10, strict=True)
        ]
    )
    costs = pl.DataFrame([{"habit": c.habit.name, "seconds": c.cost, "quality": c.mean} for c in result.courses])
    quality = alt.Y("quality:Q", title="NDCG@10", scale=alt.Scale(zero=False))
    over_time = (
        alt.Chart(steps, width=WIDTH, height=HEIGHT, title="Quality at each step")
        .mark_line(point=True)
        .encode(x=alt.X("step:T", title="step that begins"), y=quality, color=colour, tooltip=["habit", "quality"])
    )
    against_cost = (
        alt.Chart(costs, width=WIDTH, height=HEIGHT, title="Quality against cost")
        .mark_point(filled=True, size=120)
        .encode(
            x=alt.X("seconds:Q", title="seconds of learning after the first fit"),
            y=quality,
            color=colour,
            tooltip=["habit", "seconds", "quality"],
        )
    )
    return [chart.to_dict() for chart in (over_time, against_cost)]


def _time(timestamp: int, form: str) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime(form)
