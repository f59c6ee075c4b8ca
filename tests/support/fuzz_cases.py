"""Random cases of the array API: what `tests/campaigns/fuzz_api.py` draws from a number, shrinks and keeps.

A case is a plain record, from which `Setting` makes the layer and its arguments. So a case can be kept as a line of
JSON, and a field of it be made simpler while the case still fails.
"""

import dataclasses
import json
import math
import random

import numpy as np
from helpers import KINDS, LAYOUTS

import fastrnn
from fastrnn.nn.parameters import ACTIVATIONS, GATES, PLAIN, stacked_shapes

SIZES = [1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33]
WIDE_SIZES = [*SIZES, 40, 47, 48, 49, 63, 64, 65, 70]
UNBOUNDED = ["relu", "softplus", "elu", "affine", "leaky_relu", "thresholded_relu"]


@dataclasses.dataclass
class Case:
    """One case; the defaults are what shrinking goes towards. `checks` names functions of fuzz_checks."""

    seed: int = 0
    checks: tuple = ("oracle",)
    kind: str = "rnn_tanh"
    dtype: str = "float32"
    precision: str = ""             # of quantized weights
    training: str = ""              # precision of `forward`
    isa: str = "baseline"
    threads: int = 1
    I: int = 1
    H: int = 1
    T: int = 1
    N: int = 1
    num_layers: int = 1
    proj_size: int = 0
    bias: bool = True
    bidirectional: bool = False
    reverse: bool = False
    batch_first: bool = False
    unbatched: bool = False
    peephole: bool = False
    coupled_gates: bool = False
    mirror: bool = False
    activations: tuple = ()
    clip: float = 0.0               # 0 for none
    dropout: float = 0.0
    state: bool = False             # whether an initial state is given
    lengths: bool = False
    resets: bool = False
    scale: float = 1.0              # of the weights
    values: str = "plain"           # of x: plain, zeros, large, special (NaN, infinities, subnormal numbers)
    layout: str = "contiguous"      # of x
    other_layout: str = "contiguous"    # of all else
    form: str = "same"              # of x: what is passed in its place

    def as_json(self):
        default = Case()
        return json.dumps({name: value for name, value in dataclasses.asdict(self).items()
                           if value != getattr(default, name)})

    @classmethod
    def from_json(cls, text):
        values = json.loads(text)
        for name in ("checks", "activations"):
            if name in values:
                values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in values[name])
        return cls(**values)


FORMS = ["float16", "int8", "uint8", "bool", "int64", "big_endian", "list", "nested", "object", "complex", "float64",
         "longdouble", "none", "text", "bfloat16"]
RELATIONS = ["layouts", "layouts", "forms", "threads", "out", "out", "stream", "stream", "stream", "pool", "chunks",
             "rows", "lengths", "cells", "copies", "refusals", "sequential", "packed", "isas",
             "pointwise", "states"]


def draw(number):
    """The case of this number."""
    r = random.Random(number)
    kind = r.choice(list(KINDS))
    wild = r.random() < 0.12
    gradients = not wild and r.random() < 0.17
    case = Case(seed=number, kind=kind, dtype="float64" if r.random() < 0.3 else "float32",
                isa=r.choice(fastrnn.available_isas()), threads=r.choice([1, 1, 1, 2, 3]))
    sizes = SIZES if r.random() < 0.8 else WIDE_SIZES
    case.I, case.H = r.choice(sizes), r.choice(sizes)
    case.T, case.N = r.choice([0, 1, 2, 3, 4, 5, 6, 9]), r.choice([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
    if gradients:
        case.T, case.N = min(case.T, 4), min(case.N, 7)
    elif wild:
        case.T = r.choice([1, 3, 8, 20, 40])
    if r.random() < 0.01:           # work enough for several threads
        case.I, case.H, case.T, case.N = r.randint(30, 70), r.randint(48, 80), r.randint(4, 6), r.randint(20, 40)
        case.threads = r.choice([2, 3])
    case.num_layers = r.choice([1, 1, 1, 1, 1, 2, 2, 3])
    case.bias, case.batch_first = r.random() < 0.8, r.random() < 0.3
    way = r.random()
    case.bidirectional, case.reverse = way < 0.25, way > 0.9
    case.unbatched = case.N == 1 and r.random() < 0.5
    _draw_options(r, case, wild)
    case.state, case.lengths, case.resets = r.random() < 0.6, r.random() < 0.3, r.random() < 0.25
    case.layout, case.other_layout = (r.choice([*["contiguous"] * 3, *LAYOUTS, "zero_rows", "zero_steps"]),
                                      r.choice([*["contiguous"] * 5, *LAYOUTS]))
    case.form = r.choice(FORMS)
    if wild:
        case.scale = r.choice([1.0, 3.0, 8.0, 30.0])
        case.values = r.choice(["plain", "large", "special", "positive"])
    else:
        case.scale = r.choice([*[1.0] * 6, 0.0, 0.1, 3.0])
        case.values = "zeros" if r.random() < 0.05 else "plain"
    if not gradients and case.dtype == "float32" and r.random() < 0.3:
        case.precision = r.choice(["int8", "int8", "bfloat16", "bfloat16", "float16"])
    elif gradients and case.dtype == "float32" and r.random() < 0.15:
        case.training = "bfloat16"
    if case.num_layers > 1 and not case.precision and r.random() < 0.3:
        case.dropout = r.choice([0.2, 0.5, 1.0])
    checks = ["gradients"] if gradients else ["oracle"] if r.random() < 0.55 else []
    if gradients and case.dtype == "float64" and case.T * case.N < 20 and r.random() < 0.1:
        checks.append("differences")
    checks += r.sample(RELATIONS, 1 if checks else 2)
    case.checks = tuple(dict.fromkeys(checks))
    return case


def _draw_options(r, case, wild):
    if case.kind == "lstm":
        if r.random() < 0.3 and case.H > 1:
            case.proj_size = r.randint(1, case.H - 1)
        case.peephole, case.coupled_gates = r.random() < 0.25, r.random() < 0.15
    if case.kind.startswith("gru"):
        case.mirror = r.random() < 0.2
    if r.random() < (0.9 if wild else 0.3):
        count = len(PLAIN[case.kind]) * (1 + (case.bidirectional and r.random() < 0.5))
        case.activations = tuple(_activation(r, UNBOUNDED if wild and r.random() < 0.7 else list(ACTIVATIONS))
                                 for _ in range(count))
    if r.random() < 0.12:
        case.clip = r.choice([0.25, 1.0, 3.0])


def _activation(r, names):
    name = r.choice(names)
    defaults = ACTIVATIONS[name]
    numbers = [r.choice([-0.5, 0.125, 0.3, 0.5, 0.7, 1.0, 1.7]) for default in defaults if default is not None]
    return (name, *numbers) if numbers and r.random() < 0.5 else name


# ---- Shrinking ------------------------------------------------------------------------------------

def simpler(case):
    """Cases that are simpler than this one in one respect each, the boldest first."""
    default = Case()
    for name in case.checks:
        if len(case.checks) > 1:
            yield dataclasses.replace(case, checks=(name,))
    for field in dataclasses.fields(Case):
        value, wanted = getattr(case, field.name), getattr(default, field.name)
        if field.name in ("seed", "checks", "kind", "isa") or value == wanted:
            continue
        yield dataclasses.replace(case, **{field.name: wanted})
        if isinstance(value, int) and not isinstance(value, bool) and value > 2:
            yield dataclasses.replace(case, **{field.name: value // 2})
            yield dataclasses.replace(case, **{field.name: value - 1})
    if case.isa != "baseline":
        yield dataclasses.replace(case, isa="baseline")


def valid(case):
    """Whether shrinking has left a case that `draw` might have drawn."""
    forms = len(PLAIN[case.kind])
    return (case.proj_size < case.H and not (case.proj_size and case.kind != "lstm")
            and not (case.reverse and case.bidirectional) and not (case.unbatched and case.N != 1)
            and len(case.activations) in ((0, forms, 2 * forms) if case.bidirectional else (0, forms))
            and not (case.precision and case.dtype != "float32") and not (case.dropout and case.num_layers == 1))


def shrink(case, fails):
    """The simplest case that a greedy walk finds for which `fails` is still true."""
    shrunk = True
    while shrunk:
        shrunk = False
        for other in simpler(case):
            if valid(other) and fails(other):
                case, shrunk = other, True
                break
    return case


# ---- What a case is run on ------------------------------------------------------------------------------

class Setting:
    """The layer and the arguments of a case, drawn from its seed: x as [T, N, I] of the model's dtype, contiguous."""

    def __init__(self, case):
        self.case, self.rng = case, np.random.default_rng(case.seed)
        self.dtype = np.dtype(case.dtype)
        self.wild = case.values in ("large", "special", "positive") or case.scale > 3
        self.D = 1 + case.bidirectional
        self.S = case.proj_size or case.H
        self.is_lstm = case.kind == "lstm"
        self.float_layer = self._layer()
        self.layer = self.float_layer.quantized(case.precision) if case.precision else self.float_layer
        self.x = self._x()
        widths = [self.S, case.H] if self.is_lstm else [self.S]
        self.zeros = tuple(np.zeros((case.num_layers * self.D, case.N, width), self.dtype) for width in widths)
        self.state = tuple(self._normal(*part.shape) for part in self.zeros) if case.state else self.zeros
        self.lengths = self.rng.integers(0, case.T + 1, case.N) if case.lengths else None
        self.resets = self.rng.random((case.T, case.N)) < 0.25 if case.resets else None

    def _normal(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def _layer(self):
        case = self.case
        cls, options = KINDS[case.kind]
        options = {**options, "bias": case.bias, "batch_first": case.batch_first, "bidirectional": case.bidirectional,
                   "reverse": case.reverse, "dropout": case.dropout, "dtype": self.dtype}
        if self.is_lstm:
            options |= {"proj_size": case.proj_size, "peephole": case.peephole, "coupled_gates": case.coupled_gates}
        if case.mirror:
            options["update"] = "mirror"
        if case.activations:
            options["activations"] = list(case.activations)
        if case.clip:
            options["clip"] = case.clip
        self.cls, self.options = cls, options
        shapes = stacked_shapes(GATES[case.kind], case.I, case.H, case.num_layers, self.D, case.bias, case.proj_size,
                                case.peephole)
        sizes = [math.prod(shape) for shape in shapes.values()]
        numbers = self.rng.uniform(0.0 if case.values == "positive" else -1.0, 1.0, sum(sizes))
        values, at = {}, 0
        for (name, shape), size in zip(shapes.items(), sizes):
            scale = case.scale * (math.sqrt(2 / shape[1]) if len(shape) == 2 else 0.5)
            values[name] = (numbers[at:at + size] * scale).astype(self.dtype).reshape(shape)
            at += size
        return cls.from_parameters(values, case.I, case.H, case.num_layers, **options)

    def oracle_options(self, direction):
        """The options of one direction as the oracle takes them: from the case, not from the layer."""
        case, plain = self.case, PLAIN[self.case.kind]
        used = [(one,) if isinstance(one, str) else one for one in case.activations or plain]
        first = direction * len(plain) if len(used) > len(plain) else 0
        activations = []
        for name, *numbers in used[first:first + len(plain)]:
            padded = [*numbers, *ACTIVATIONS[name][len(numbers):]]
            activations.append((name, *(0.0 if number is None else float(number) for number in padded)))
        return activations, case.clip or np.inf, case.coupled_gates, case.mirror

    def _x(self):
        case = self.case
        x = self._normal(case.T, case.N, case.I)
        if case.values == "zeros":
            x[...] = 0
        elif case.values == "positive":
            x = abs(x)
        elif case.values == "large":
            x *= self.dtype.type(10.0 ** self.rng.integers(3, 37))
        elif case.values == "special" and x.size:
            info = np.finfo(self.dtype)
            specials = [np.nan, np.inf, -np.inf, info.max, -info.max, info.tiny / 4, -0.0, info.tiny]
            for _ in range(self.rng.integers(1, 4)):
                x.flat[self.rng.integers(x.size)] = specials[self.rng.integers(len(specials))]
        if case.layout in ("zero_rows", "zero_steps") and x.size:       # `layout` passes it with a stride of zero
            x = np.broadcast_to(x[:, :1] if case.layout == "zero_rows" else x[:1], x.shape).copy()
        return x

    # ---- In the caller's convention -------------------------------------------------------------------

    def external(self, a):
        """[T, N, width] as the layer takes it, contiguous."""
        return np.ascontiguousarray(a[:, 0] if self.case.unbatched else
                                    a.swapaxes(0, 1) if self.case.batch_first else a)

    def internal(self, a):
        return a[:, None] if self.case.unbatched else a.swapaxes(0, 1) if self.case.batch_first else a

    def state_argument(self, parts):
        parts = tuple(part[:, 0] if self.case.unbatched else part for part in parts)
        return parts if self.is_lstm else parts[0]

    def parts(self, state):
        """(h,) or (h, c) as [L*D, N, width], of what a layer gives."""
        parts = state if isinstance(state, tuple) else (state,)
        return tuple(part[:, None] if self.case.unbatched else part for part in parts)

    def arguments(self, state=True):
        """Keywords of a call besides x."""
        result = {"state": self.state_argument(self.state)} if self.case.state and state else {}
        if self.lengths is not None:
            result["lengths"] = self.lengths
        if self.resets is not None:
            result["reset_mask"] = np.ascontiguousarray(self.resets[:, 0]) if self.case.unbatched else self.resets
        return result

    def call(self, layer=None, x=None, **changes):
        """Every array of a call, by name, in the caller's convention."""
        layer = self.layer if layer is None else layer
        output, last = layer(self.external(self.x) if x is None else x, **self.arguments() | changes)
        return self.named(output, last)

    def named(self, output, last):
        return {"output": output, **dict(zip(("h_n", "c_n"), last if isinstance(last, tuple) else (last,)))}

    def layout(self, a, name=None):
        """An array as the case lays out x (or by `name`)."""
        name = self.case.layout if name is None else name
        if name in ("zero_rows", "zero_steps"):
            rows = name == "zero_rows"
            axis = (0 if self.case.batch_first else 1) if rows else (1 if self.case.batch_first else 0)
            axis = min(axis, a.ndim - 2) if self.case.unbatched else axis
            if self.case.unbatched and rows:
                return a
            return np.broadcast_to(a[(slice(None),) * axis + (slice(0, 1),)], a.shape) if a.shape[axis] else a
        return LAYOUTS[name](a)
