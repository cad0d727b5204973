"""A dataset and names of models come in; one honest table of them, and a report, go out."""

from recloom.comparison.audit import Finding, audit_catalogue, audit_model, audit_split
from recloom.comparison.comparing import Comparison, Entry, ModelResult, Pair, compare, parse_entries

__all__ = [
    "Comparison",
    "Entry",
    "Finding",
    "ModelResult",
    "Pair",
    "audit_catalogue",
    "audit_model",
    "audit_split",
    "compare",
    "parse_entries",
]
