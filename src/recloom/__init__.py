"""Predict what each person does next, from what people did and what the items say."""

__version__ = "0.1.0"
