"""A fitted model and what happened since come in; its next version, or the verdict that it needs one, goes out."""
