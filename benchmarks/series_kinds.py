"""Synthetic series of plain kinds, of which it is known what can be learnt: for ``benchmarks/series.py``.

Fifty series of each kind, 300 values each, from generators with a seed: the same series on every machine. Levels,
slopes, phases and heights of waves differ from series to series; a season has 12 steps. Noise is normal with standard
deviation 1 if nothing else is said.
"""
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LENGTH, COUNT = 300, 50
SEASON = 12


def random_walk(rng, t):
    return rng.standard_normal(len(t)).cumsum()


def noise(rng, t):
    return rng.uniform(-20, 20) + rng.standard_normal(len(t))


def sine(rng, t):
    wave = rng.uniform(3, 10) * np.sin(2 * np.pi * (t / SEASON + rng.random()))
    return rng.uniform(20, 100) + wave + rng.standard_normal(len(t))


def trend(rng, t):
    return rng.uniform(-20, 20) + rng.choice([-1, 1]) * rng.uniform(0.1, 0.5) * t + rng.standard_normal(len(t))


def steps(rng, t):
    """A level that steps by 5 to 20 at one time in 60."""
    jumps = (rng.random(len(t)) < 1 / 60) * rng.choice([-1, 1], len(t)) * rng.uniform(5, 20, len(t))
    return jumps.cumsum() + rng.standard_normal(len(t))


def intermittent(rng, t):
    """Zero at 6 times in 7 or so; otherwise 1 and a Poisson number."""
    return np.where(rng.random(len(t)) < rng.uniform(0.1, 0.2), 1.0 + rng.poisson(3, len(t)), 0.0)


def growing_season(rng, t):
    """A profile of twelve factors on a level that grows by 0.2 to 0.5 per cent a step, noise of 3 per cent."""
    profile = np.exp(0.3 * rng.standard_normal(SEASON))
    return rng.uniform(50, 500) * np.exp(rng.uniform(0.002, 0.005) * t) * profile[t % SEASON] * np.exp(
        0.03 * rng.standard_normal(len(t)))


@dataclass(frozen=True)
class Kind:
    """A kind of series: its season (1: none), how it is made, and the most that MAE over the best naive's should be."""

    season: int
    make: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    target: float


KINDS = {
    "random walk": Kind(1, random_walk, 1.05),
    "noise": Kind(1, noise, 1.05),
    "sine and noise": Kind(SEASON, sine, 0.9),
    "trend and noise": Kind(1, trend, 0.9),
    "steps": Kind(1, steps, 1.05),
    "intermittent": Kind(1, intermittent, 1.05),
    "growing season": Kind(SEASON, growing_season, 0.9),
}


def series_of(name, count=COUNT, length=LENGTH):
    """The series of a kind; the n-th is the same whatever the count."""
    kind, t = KINDS[name], np.arange(length)
    return [kind.make(np.random.default_rng([zlib.crc32(name.encode()), n]), t) for n in range(count)]
