"""A comparison -> tables of text, in Markdown and LaTeX."""

from collections.abc import Sequence
from datetime import UTC, datetime

from recloom.comparison.comparing import Comparison, ModelResult

CUT_FREE = ("AUC",)
"""Metrics without a cutoff."""


def metric_names(comparison: Comparison) -> list[str]:
    """Return the names of all metrics that any model has, without cutoffs, those of accuracy first."""
    names = [n.split("@")[0] for result in comparison.models for n in (*result.metrics, *result.catalogue)]
    return list(dict.fromkeys(names))


def value_of(result: ModelResult, name: str, cutoff: int) -> float | None:
    """Return a metric at a cutoff; None where it is not defined."""
    key = name if name in CUT_FREE else f"{name}@{cutoff}"
    if key in result.metrics:
        return result.metrics[key].mean
    return result.catalogue.get(key)


def verdicts(comparison: Comparison) -> dict[str, str]:
    """Return how each model stands against the best one, by label."""
    best = comparison.models[0].label
    said = {best: "best"}
    for pair in comparison.pairs:
        if pair.first == best:
            tied = pair.verdict == "tie"
            said[pair.second] = "tie with the best" if tied else f"p {_p(pair.adjusted_p)}"
    return said


def main_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table that matters, best model first."""
    main, last = comparison.main_metric, comparison.cutoffs[-1]
    cutoff = int(main.split("@")[1])
    heads = [
        "model",
        main,
        "95 % interval",
        f"HR@{cutoff}",
        f"recall@{last}",
        "new items",
        "fit, s",
        "rank, s",
        "verdict",
    ]
    said = verdicts(comparison)
    rows = []
    for result in comparison.models:
        if result.error is not None:
            rows.append([result.label, "failed", "", "", "", "", "", "", result.error])
            continue
        metric, new = result.metrics[main], result.slices.get("new item")
        rows.append(
            [
                result.label,
                f"{metric.mean:.4f}",
                f"{metric.low:.4f} to {metric.high:.4f}",
                f"{result.metrics[f'HR@{cutoff}'].mean:.4f}",
                f"{result.metrics[f'recall@{last}'].mean:.4f}",
                f"{new.metrics[main].mean:.4f}" if new else "",
                f"{result.fit_seconds:.1f}",
                f"{result.rank_seconds:.1f}",
                said.get(result.label, ""),
            ]
        )
    return heads, rows


def all_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table of every metric at the main cutoff."""
    cutoff = int(comparison.main_metric.split("@")[1])
    names = metric_names(comparison)
    done = [result for result in comparison.models if result.error is None]
    cells = [[value_of(result, name, cutoff) for name in names] for result in done]
    rows = [
        [result.label, *("" if value is None else f"{value:.4f}" for value in values)]
        for result, values in zip(done, cells, strict=True)
    ]
    return ["model", *(name if name in CUT_FREE else f"{name}@{cutoff}" for name in names)], rows


def pair_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table of every two models."""
    heads = ["better", "worse", "difference", "95 % interval", "effect size", "p", "p after Holm", "verdict"]
    rows = [
        [
            pair.first,
            pair.second,
            f"{pair.difference.mean:.4f}",
            f"{pair.difference.low:.4f} to {pair.difference.high:.4f}",
            f"{pair.difference.effect_size:.3f}",
            _p(pair.difference.p_value),
            _p(pair.adjusted_p),
            "tie" if pair.verdict == "tie" else f"{pair.verdict} is better",
        ]
        for pair in comparison.pairs
    ]
    return heads, rows


def window_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table of models over stretches of time, with mean and spread."""
    heads = ["model", *(f"{_day(window.split_time)} ({window.num_cases:,})" for window in comparison.windows)]
    rows = []
    for result in comparison.models:
        values = [window.ndcg[result.label] for window in comparison.windows if result.label in window.ndcg]
        if len(values) == len(comparison.windows) > 0:
            mean = sum(values) / len(values)
            spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
            rows.append([result.label, *(f"{value:.4f}" for value in values), f"{mean:.4f}", f"{spread:.4f}"])
    return [*heads, "mean", "spread"], rows


def markdown(comparison: Comparison) -> str:
    """Return the tables in Markdown, with what is needed to repeat them."""
    parts = [f"# {comparison.name}: {comparison.split['protocol']}, ties {comparison.split['ties']}", ""]
    parts += _markdown_table(*main_rows(comparison))
    parts += [
        "",
        f"{comparison.num_cases:,} users asked, full ranking. Tie: no difference at 5 % by a paired permutation",
    ]
    parts += [
        "test over users with Holm's correction.",
        "",
        "## Every metric",
        "",
        *_markdown_table(*all_rows(comparison)),
    ]
    if comparison.pairs:
        parts += ["", f"## Every two models, {comparison.main_metric}", "", *_markdown_table(*pair_rows(comparison))]
    if comparison.windows:
        parts += ["", f"## Over time, {comparison.main_metric}", "", *_markdown_table(*window_rows(comparison))]
    if findings := comparison.findings + [f for result in comparison.models for f in result.findings]:
        parts += ["", "## Audit", "", *(f"- {'leak' if f.is_leak else 'warning'}: {f.what}" for f in findings)]
    parts += ["", f"Data and split {comparison.fingerprint}; {comparison.versions}; {comparison.hardware}.", ""]
    return "\n".join(parts)


def latex(comparison: Comparison) -> str:
    """Return the main table as a LaTeX tabular."""
    heads, rows = main_rows(comparison)
    lines = [r"\begin{tabular}{l" + "r" * (len(heads) - 2) + "l}", r"\hline", _latex_row(heads), r"\hline"]
    return "\n".join([*lines, *map(_latex_row, rows), r"\hline", r"\end{tabular}", ""])


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, rows)]


_LATEX_SIGNS = str.maketrans(
    {sign: f"\\{sign}" for sign in "%&#_${}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$"}
)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX_SIGNS) for cell in cells) + r" \\"


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _day(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
