"""The one limit in real time that a test may have."""

PATIENCE = 300.0
"""Seconds after which a wait counts as a hang.

It detects hangs, and nothing else: ten times what the slowest test takes under coverage on a
machine eight times as busy as it has cores for. pytest's own limit is twice that, in pyproject.toml.
"""
