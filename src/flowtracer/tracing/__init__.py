"""A model and texts in, traces out: one, many, or a folder that can be gone on with."""
