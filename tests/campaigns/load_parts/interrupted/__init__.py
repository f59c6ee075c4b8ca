"""The long calls that are interrupted, each with a check of what it leaves behind.

A function here prepares one of them in a folder of its own, and returns the call and the check. The check runs after
every interruption and raises AssertionError where something is neither as before the call nor as after it.
"""

from . import estimators, models  # each adds its calls
from .registry import CALLS

__all__ = ["CALLS", "estimators", "models"]
