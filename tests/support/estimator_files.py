"""What the tests of estimators' files share."""

import collections

import numpy as np

from fastrnn import Stream
from fastrnn._base import named_arrays, trees
from fastrnn.nn.base import Parametrised


def rewritten(path, change):
    """The file with its configuration changed, and the arrays as they are."""
    arrays, metadata = named_arrays.read(path)
    change(metadata)
    named_arrays.write(path, arrays, metadata)


def differences(a, b, name="state"):
    """Where two trees of fitted state differ, bit for bit."""
    if type(a) is not type(b):
        return [f"{name}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, np.ndarray) and a.dtype != object:
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return [] if same else [f"{name}: arrays"]
    if isinstance(a, dict):
        a, b = list(a.items()), list(b.items())
    if isinstance(a, (list, tuple, collections.deque, np.ndarray)):
        if len(a) != len(b):
            return [f"{name}: {len(a)} and {len(b)} values"]
        return [each for n, pair in enumerate(zip(a, b, strict=True)) for each in differences(*pair, f"{name}[{n}]")]
    if isinstance(a, np.random.Generator):
        return differences(a.bit_generator.state, b.bit_generator.state, name)
    if isinstance(a, np.random.RandomState):
        return differences(a.get_state(legacy=False), b.get_state(legacy=False), name)
    if isinstance(a, Stream):
        return differences([a._model, a.state], [b._model, b.state], name)
    if isinstance(a, Parametrised):
        return differences([repr(a), a.state_dict()], [repr(b), b.state_dict()], name)
    if type(a) in trees.CLASSES.values():
        return differences(trees._attributes(a), trees._attributes(b), name)
    return [] if repr(a) == repr(b) else [f"{name}: {a!r} and {b!r}"]
