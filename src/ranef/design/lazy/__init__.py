"""Lazy frames: parts of a formula as expressions of an engine, and what is asked of its columns."""
