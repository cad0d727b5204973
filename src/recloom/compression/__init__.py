"""A fitted model comes in; a smaller one, or a graph that runs without recloom, goes out."""
