"""The calls by name, and what their checks share."""

import numpy as np

CALLS = {}


def add(name):
    def register(function):
        CALLS[name] = function
        return function
    return register


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def same(a, b):
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if a is None or b is None:              # a module without a state
        return a is b
    return np.array_equal(a, b, equal_nan=True)
