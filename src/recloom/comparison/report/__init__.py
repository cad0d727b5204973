"""A comparison -> a page to read, or tables to paste."""

from recloom.comparison.report.writing import FORMATS, write_report

__all__ = ["FORMATS", "write_report"]
