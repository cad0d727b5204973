"""A comparison -> Vega-Lite charts, each as a plain dictionary."""

from datetime import UTC, datetime
from typing import Any

import altair as alt
import polars as pl

from recloom.comparison.comparing import Comparison

WIDTH, HEIGHT = 420, 250
MOST_COLOURS = 10
"""Categories of the map that get a colour of their own."""

Spec = dict[str, Any]
Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def charts(comparison: Comparison) -> dict[str, Spec]:
    """Return the charts of a report by their title; one whose data is missing is left out."""
    makers = {
        "Quality against the length of the list": _by_cutoff,
        "Quality against training time": _by_time,
        "Who is served": _by_slice,
        "Learning curves": _curves,
        "Over time": _over_time,
        "How long people's histories are": _lengths,
        "How popularity is spread": _popularity,
        "When things happened": _timeline,
        "What the items say": _map,
    }
    made = {title: make(comparison) for title, make in makers.items()}
    return {title: _plain(chart) for title, chart in made.items() if chart is not None}


def _plain(chart: Chart) -> Spec:
    styled = chart.configure_view(strokeWidth=0).configure_axis(grid=True, gridColor="#eee", labelColor="#444")
    spec: Spec = styled.to_dict()
    return spec


def _models(comparison: Comparison) -> alt.Color:
    """Colour models the same in every chart, in the order of the table."""
    legend = alt.Legend(orient="bottom", columns=5)
    labels = [result.label for result in comparison.models if result.error is None]
    return alt.Color(
        "model:N", sort=labels, scale=alt.Scale(scheme="tableau20", domain=labels), title=None, legend=legend
    )


def _by_cutoff(comparison: Comparison) -> Chart | None:
    name = comparison.main_metric.split("@")[0]
    rows = [
        {"model": result.label, "cutoff": cutoff, name: result.metrics[f"{name}@{cutoff}"].mean}
        for result in comparison.models
        if result.error is None
        for cutoff in comparison.cutoffs
    ]
    if not rows:
        return None
    return (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT)
        .mark_line(point=True)
        .encode(
            x=alt.X("cutoff:Q", title="length of the list", axis=alt.Axis(values=comparison.cutoffs)),
            y=alt.Y(f"{name}:Q"),
            color=_models(comparison),
            tooltip=["model", "cutoff", alt.Tooltip(name, format=".4f")],
        )
    )


def _by_time(comparison: Comparison) -> Chart | None:
    rows = [
        {
            "model": result.label,
            # A logarithmic axis has no place for nothing.
            "seconds": max(result.fit_seconds, 0.01),
            "value": result.metrics[comparison.main_metric].mean,
            "low": result.metrics[comparison.main_metric].low,
            "high": result.metrics[comparison.main_metric].high,
        }
        for result in comparison.models
        if result.error is None
    ]
    if not rows:
        return None
    base = alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT).encode(
        x=alt.X("seconds:Q", scale=alt.Scale(type="log"), title="seconds to fit"),
        color=_models(comparison),
        tooltip=["model", "seconds", alt.Tooltip("value", format=".4f")],
    )
    points = base.mark_point(filled=True, size=90).encode(y=alt.Y("value:Q", title=comparison.main_metric))
    return alt.layer(base.mark_rule().encode(y="low:Q", y2="high:Q"), points)


def _by_slice(comparison: Comparison) -> Chart | None:
    main = comparison.main_metric
    rows = [
        {
            "model": result.label,
            "slice": f"{name} ({part.num_cases:,})",
            "value": part.metrics[main].mean,
            "low": part.metrics[main].low,
            "high": part.metrics[main].high,
        }
        for result in comparison.models
        for name, part in result.slices.items()
        if main in part.metrics
    ]
    if not rows:
        return None
    order = list(dict.fromkeys(str(row["slice"]) for row in rows))
    return (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=max(HEIGHT, 34 * len(order)))
        .mark_point(filled=True, size=70, opacity=0.8)
        .encode(
            x=alt.X("value:Q", title=main),
            y=alt.Y("slice:N", sort=order, title=None, axis=alt.Axis(labelLimit=220)),
            color=_models(comparison),
            tooltip=["model", "slice", alt.Tooltip("value", format=".4f"), alt.Tooltip("low", format=".4f"),
                     alt.Tooltip("high", format=".4f")],
        )
    )  # fmt: skip


def _curves(comparison: Comparison) -> Chart | None:
    rows = [
        {"model": result.label, "seconds": epoch["seconds"], "epoch": epoch["epoch"], "value": epoch["validation"]}
        for result in comparison.models
        for epoch in result.curve
        if epoch["validation"] is not None
    ]
    if not rows:
        return None
    return (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT)
        .mark_line(point=True)
        .encode(
            x=alt.X("seconds:Q", title="seconds of training"),
            y=alt.Y("value:Q", title="NDCG@10 on validation"),
            color=_models(comparison),
            tooltip=["model", "epoch", alt.Tooltip("value", format=".4f")],
        )
    )


def _over_time(comparison: Comparison) -> Chart | None:
    rows = [
        {"model": label, "begins": _moment(window.split_time), "value": value}
        for window in comparison.windows
        for label, value in window.ndcg.items()
    ]
    if not rows:
        return None
    return (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT)
        .mark_line(point=True)
        .encode(
            x=alt.X("begins:T", title="test begins"),
            y=alt.Y("value:Q", title=comparison.main_metric),
            color=_models(comparison),
            tooltip=["model", "begins:T", alt.Tooltip("value", format=".4f")],
        )
    )


def _lengths(comparison: Comparison) -> Chart | None:
    rows, before = [], 0
    for edge, users in comparison.dataset.history_lengths:
        rows.append({"length": str(edge) if edge <= before + 1 else f"{before + 1} to {edge}", "users": users})
        before = edge
    return (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT)
        .mark_bar(color="#4c78a8")
        .encode(
            x=alt.X("length:N", sort=None, title="interactions", axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("users:Q"),
            tooltip=["length", "users"],
        )
    )


def _popularity(comparison: Comparison) -> Chart | None:
    rows = [{"rank": rank, "interactions": max(count, 0.5)} for rank, count in comparison.dataset.popularity]
    return (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT)
        .mark_line(color="#4c78a8")
        .encode(
            x=alt.X("rank:Q", scale=alt.Scale(type="log"), title="rank of the item"),
            y=alt.Y("interactions:Q", scale=alt.Scale(type="log")),
            tooltip=["rank", "interactions"],
        )
    )


def _timeline(comparison: Comparison) -> Chart | None:
    rows = [{"from": _moment(begin), "interactions": count} for begin, count in comparison.dataset.timeline]
    if not rows:
        return None
    area = (
        alt.Chart(pl.DataFrame(rows), width=WIDTH, height=HEIGHT)
        .mark_area(color="#9ecae9", line={"color": "#4c78a8"}, interpolate="step-after")
        .encode(x=alt.X("from:T", title=None), y=alt.Y("interactions:Q"), tooltip=["from:T", "interactions"])
    )
    if comparison.split_time is None:
        return area
    mark = pl.DataFrame([{"from": _moment(comparison.split_time), "what": "test begins"}])
    rule = alt.Chart(mark).mark_rule(color="#e45756", strokeDash=[4, 3]).encode(x="from:T", tooltip=["what"])
    return alt.layer(area, rule)


def _map(comparison: Comparison) -> Chart | None:
    items = comparison.item_map
    if items is None:
        return None
    table = pl.DataFrame(
        {"x": items.x, "y": items.y, "title": items.titles, "category": items.categories, "taken": items.interactions}
    )
    frequent = table["category"].value_counts(sort=True)["category"][:MOST_COLOURS].to_list()
    table = table.with_columns(
        pl.when(pl.col("category").is_in(frequent)).then("category").otherwise(pl.lit("other")).alias("category")
    )
    colour = alt.Color("category:N", scale=alt.Scale(scheme="tableau20"), title=items.column)
    return (
        alt.Chart(table, width=2 * WIDTH, height=2 * HEIGHT)
        .mark_circle(opacity=0.75)
        .encode(
            x=alt.X("x:Q", axis=None),
            y=alt.Y("y:Q", axis=None),
            color=colour if items.column else alt.value("#4c78a8"),
            size=alt.Size("taken:Q", scale=alt.Scale(range=[15, 260]), title="interactions"),
            tooltip=["title", "category", "taken"],
        )
        .interactive()
    )


def _moment(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat()
