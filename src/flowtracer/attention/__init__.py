"""Rows of attention, recomputed from the queries and keys of layers."""
