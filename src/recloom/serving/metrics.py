"""What a service counts, for Prometheus."""

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from recloom.serving.engine import Served

_SECONDS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

request_seconds = Histogram(
    "recloom_request_seconds", "Time from request to response", ["route", "status"], buckets=_SECONDS
)
recommendation_seconds = Histogram(
    "recloom_recommendation_seconds", "Time to make a list, waiting included", ["model", "variant"], buckets=_SECONDS
)
recommendations = Counter("recloom_recommendations", "Lists made, by what made them", ["model", "variant", "served_by"])
model_failures = Counter(
    "recloom_model_failures", "Lists that a fallback had to make because a model failed", ["model"]
)
lost_exposures = Counter("recloom_lost_exposures", "Lists shown whose record found no room")
events = Counter("recloom_events", "Events taken in", ["outcome"])
event_lag_seconds = Histogram(
    "recloom_event_lag_seconds", "From when something happened to when it was stored",
    buckets=(0.01, 0.1, 1, 10, 60, 600, 3_600, 86_400),
)  # fmt: skip
phrased = Counter("recloom_phrased_reasons", "Reasons that were to be phrased, by who did: writer or template", ["by"])
index_recall = Gauge("recloom_index_recall", "Share of the ten best items that the search finds", ["model"])
waiting = Gauge("recloom_waiting", "What waits", ["queue"])
shadow_seconds = Histogram("recloom_shadow_seconds", "Time of a batch of a shadow", ["model"], buckets=_SECONDS)
shadow_overlap = Histogram(
    "recloom_shadow_overlap", "Share of a list that a shadow would have shown too", ["model"],
    buckets=(0.0, 0.2, 0.4, 0.6, 0.8, 0.99, 1.0),
)  # fmt: skip


def served(made: "Served") -> None:
    """Count a list."""
    recommendations.labels(made.model.name, made.variant or "", made.answer.served_by).inc()
