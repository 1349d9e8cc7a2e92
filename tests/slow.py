"""Parametrizations of which the quick tests take some, and the slow ones the others."""

import pytest


def slow_but(quick, names):
    """All of them, those that are not among the quick ones in the slow tests."""
    slow = pytest.mark.slow
    return [name if name in quick else pytest.param(name, marks=slow) for name in names]
