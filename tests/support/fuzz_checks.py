"""What holds of every case of the array API: within the oracle's error bounds, and the exact relations.

Each check takes a fuzz_cases.Setting and raises AssertionError, or whatever else came up: then the case is a finding.
"""

import copy
import zlib

import numpy as np
from error_bounds import Arithmetic, BoundedForm, parameters_of, step, walk, walk_back
from fuzz_cases import Setting
from helpers import LAYOUTS, using_isa

import fastrnn
from fastrnn.nn.parameters import layer_suffix

CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


# ---- Comparisons ----------------------------------------------------------------------------------

def same(actual, expected, title):
    """The same bits, but for those of NaN; arrays, dicts or tuples of them."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), f"{title}: {list(actual)} for {list(expected)}"
        for name, value in expected.items():
            same(actual[name], value, f"{title}: {name}")
        return
    if isinstance(expected, tuple):
        assert len(actual) == len(expected), title
        for one, other in zip(actual, expected):
            same(one, other, title)
        return
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), (
        f"{title}: {actual.dtype} {actual.shape} for {expected.dtype} {expected.shape}")
    if actual.tobytes() != expected.tobytes():
        differ = ~((actual == expected) & (np.signbit(actual) == np.signbit(expected))
                   | np.isnan(actual) & np.isnan(expected))
        if differ.any():
            at = tuple(int(i) for i in np.argwhere(differ)[0])
            raise AssertionError(f"{title}: {differ.sum()} of {differ.size} differ, first at {at}: "
                                 f"{actual[at].item().hex()} for {expected[at].item().hex()}")


def within(actual, bounded, title, dtype):
    """Within the bounds of the oracle; infinite or NaN where it is; anything where it is undecided."""
    bounded = bounded.settled() if bounded.by.wild else bounded
    assert (actual.dtype, actual.shape) == (dtype, bounded.value.shape), (
        f"{title}: {actual.dtype} {actual.shape} for {bounded.value.shape}")
    value, error = bounded.value, bounded.error
    with np.errstate(all="ignore"):
        difference = np.abs(actual - value)
        good = difference <= error + 2 * bounded.by.u * np.abs(value)
        if not good.all():
            good |= np.isinf(error) | ~np.isfinite(value) & ~np.isfinite(actual)
    if not good.all():
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        raise AssertionError(f"{title}: {(~good).sum()} of {good.size} beyond the bound, first at {at}: "
                             f"{actual[at]!r} for {float(value[at])!r} +- {float(error[at]):.3g}")


def refused(function, names, title, kinds=(TypeError, ValueError)):
    """A TypeError or ValueError whose message names the argument."""
    try:
        function()
    except kinds as error:
        message = str(error)
    else:
        raise AssertionError(f"{title}: not refused")
    assert message.split(":")[0].split(" ")[0] in names, f"{title}: refused without its name: {message}"


# ---- The oracle -----------------------------------------------------------------------------------

def arithmetic(setting, precision=""):
    case = setting.case
    widest = max(case.I, setting.D * setting.S)
    return Arithmetic(setting.dtype, widest + setting.S + case.H, setting.wild,
                      "bfloat16" in (case.precision, precision))


def single(setting, k):
    """Layer k of a stack, as a layer of its own that reads [T, N, width]."""
    if setting.case.num_layers == 1:
        one = copy.copy(setting.layer)
        one.batch_first = False
        return one
    values = {}
    for d in range(setting.D):
        suffix = layer_suffix(k, d)
        values |= {name.removesuffix(suffix) + layer_suffix(0, d): value
                   for name, value in setting.float_layer.parameters.items() if name.endswith(suffix)}
    options = {**setting.options, "batch_first": False, "dropout": 0.0}
    inputs = setting.case.I if k == 0 else setting.D * setting.S
    one = setting.cls.from_parameters(values, inputs, setting.case.H, **options)
    return one.quantized(setting.case.precision) if setting.case.precision else one


def previous(setting, series, initial, lengths, backwards):
    """The state before each step [T, N, width], from the kernel's own state after each step."""
    T, N = series.shape[:2]
    before = np.empty((T, N, initial.shape[-1]), setting.dtype)
    if backwards:
        before[:-1] = series[1:]
        before[lengths[lengths > 0] - 1, np.flatnonzero(lengths > 0)] = initial[lengths > 0]
    else:
        before[1:] = series[:-1]
        before[:1] = initial
    if setting.resets is not None:
        before[setting.resets] = 0
    return before


@check
def oracle(setting):
    """Every step of every layer, from the kernel's own state before it: so that no error of earlier steps is in it.

    A stack's bits are those of its layers one after the other, which is asserted, too.
    """
    case, D = setting.case, setting.D
    expected = setting.call()
    lengths = np.full(case.N, case.T) if setting.lengths is None else setting.lengths
    valid = np.arange(case.T)[:, None] < lengths
    x, options, last = setting.x, {}, [[], []]
    if setting.lengths is not None:
        options["lengths"] = lengths
    if setting.resets is not None:
        options["reset_mask"] = setting.resets
    for k in range(case.num_layers):
        one = single(setting, k)
        initial = tuple(part[k * D:(k + 1) * D] for part in setting.state)
        state = initial if setting.is_lstm else initial[0]
        if setting.is_lstm:
            output, finals, cells = one(x, state, return_cell_states=True, **options)
        else:
            (output, finals), cells = one(x, state, **options), None
        finals = finals if isinstance(finals, tuple) else (finals,)
        for parts, part in zip(last, finals):
            parts.append(part)
        for series in (output, cells):      # numbers that may overflow in a step
            setting.wild |= series is not None and not np.all(np.abs(series) < 1e10)
        assert not output[~valid].any() and not np.isnan(output[~valid]).any(), "output past a row's length"
        _steps_within(setting, one, x, (output, cells), initial, finals, lengths, valid)
        x = output
    whole = setting.named(setting.external(x), setting.state_argument(tuple(map(np.concatenate, filter(None, last)))))
    same(expected, whole, "the stack and its layers one by one")


def _steps_within(setting, one, x, series, initial, finals, lengths, valid):
    """The steps of one layer, each direction in one batch of all steps."""
    case, by = setting.case, arithmetic(setting)
    for d in range(setting.D):
        backwards = d == 1 or case.reverse
        form = BoundedForm(case.kind, setting.oracle_options(d), by)
        p = parameters_of(one.parameters, layer_suffix(0, d), by)
        own = [part[..., d * width:(d + 1) * width] for part, width in zip(series, (setting.S, case.H))
               if part is not None]
        before = [by.exact(previous(setting, part, first[d], lengths, backwards)[valid])
                  for part, first in zip(own, initial)]
        new = step(case.kind, form, p, by.exact(x[valid]), *before)[0]
        for name, part, bounded in zip(("h", "c"), own, new):
            within(np.ascontiguousarray(part[valid]), bounded, f"direction {d}: {name}", setting.dtype)
        for n in range(case.N):         # the last state is that of the last step taken
            for part, first, final in zip(own, initial, finals):
                at = 0 if backwards else lengths[n] - 1
                same(final[d, n], part[at, n] if lengths[n] else first[d, n], f"last state of row {n}")


@check
def gradients(setting):
    """Forward and backward over whole sequences, with errors carried from step to step; twice, and on threads."""
    case, layer = setting.case, setting.float_layer
    d_output = setting._normal(case.T, case.N, setting.D * setting.S)
    d_state = tuple(setting._normal(*part.shape) for part in setting.state)
    precision = case.training or None
    x = setting.layout(setting.external(setting.x))
    other = LAYOUTS[case.other_layout]
    arguments = {name: tuple(map(other, value)) if isinstance(value, tuple) else other(np.asarray(value))
                 for name, value in setting.arguments().items()}
    output, last, cache = layer.forward(x, rng=case.seed, precision=precision, **arguments)
    grads = layer.backward(cache, other(setting.external(d_output)), setting.state_argument(d_state))
    if not precision and not case.dropout:
        same(setting.named(output, last), setting.call(layer), "forward and call")
    again = layer.backward(cache, setting.external(d_output), setting.state_argument(d_state), need_input=False)
    assert again.input is None
    same(again.parameters, grads.parameters, "without the gradient of the input")
    with fastrnn.threads(3):
        repeated = layer.forward(setting.external(setting.x), rng=case.seed, precision=precision,
                                 **setting.arguments())
        third = layer.backward(repeated[2], setting.external(d_output), setting.state_argument(d_state))
    same((repeated[0], *setting.parts(repeated[1])), (output, *setting.parts(last)), "forward, repeated")
    same((third.input, *setting.parts(third.state)), (grads.input, *setting.parts(grads.state)), "backward, repeated")
    same(third.parameters, grads.parameters, "backward, repeated")
    if setting.wild:
        return
    found = {"output": setting.internal(output), "dx": setting.internal(grads.input), **grads.parameters}
    found |= dict(zip(("h_n", "c_n"), setting.parts(last))) | dict(zip(("dh_0", "dc_0"), setting.parts(grads.state)))
    bounds = _bounded_gradients(setting, layer, d_output, d_state, cache.dropped)
    assert sorted(found) == sorted(bounds)
    if not all(np.all(bounded.size + bounded.error < 1e30) for bounded in bounds.values()):
        return          # may overflow on the way; single steps are the oracle's check
    for name, bounded in bounds.items():
        within(np.ascontiguousarray(found[name]), bounded, name, setting.dtype)


def _bounded_gradients(setting, layer, d_output, d_state, dropped):
    """Everything that `gradients` compares, with bounds, by name."""
    case, D, by = setting.case, setting.D, arithmetic(setting, setting.case.training)
    lengths = np.full(case.N, case.T) if setting.lengths is None else setting.lengths
    resets = np.zeros((case.T, case.N), bool) if setting.resets is None else setting.resets
    x, kept, last = by.exact(setting.x), [], []
    for k in range(case.num_layers):
        outputs, inputs = [], x
        for d in range(D):
            form = BoundedForm(case.kind, setting.oracle_options(d), by)
            p = parameters_of(layer.parameters, layer_suffix(k, d), by)
            first = [by.exact(part[k * D + d]) for part in setting.state]
            series, finals, steps = walk(case.kind, form, p, inputs, first, lengths, resets, d == 1 or case.reverse)
            outputs.append(series[0])
            last.append(finals)
            kept.append((form, p, steps, inputs.shape))
        x = np.concatenate(outputs, axis=-1)
        if dropped and k < case.num_layers - 1:
            x = x * dropped[k].astype(float)
    bounds = {"output": x, **dict(zip(("h_n", "c_n"), map(_stacked, zip(*last))))}
    dy, first = by.exact(d_output), [None] * len(kept)
    for k in reversed(range(case.num_layers)):
        dx = by.zeros(kept[k * D][3])
        for d in range(D):
            at = k * D + d
            form, p, steps, shape = kept[at]
            part, first[at], by_name = walk_back(case.kind, form, p, steps, shape,
                                                 dy[..., d * setting.S:(d + 1) * setting.S],
                                                 [by.exact(part[at]) for part in d_state])
            dx = dx + part
            bounds |= {name + layer_suffix(k, d): value for name, value in by_name.items()}
        dy = dx * dropped[k - 1].astype(float) if dropped and k else dx
    return bounds | {"dx": dy} | dict(zip(("dh_0", "dc_0"), map(_stacked, zip(*first))))


def _stacked(parts):
    value, error, size = (np.stack([getattr(part, name) for part in parts]) for name in ("value", "error", "size"))
    return type(parts[0])(value, error, size, parts[0].by)


@check
def differences(setting):
    """One directional derivative by central differences, of everything at once.

    The difference quotients of steps 2e-4 and 1e-4 tell the truncation error, which is a third of how they differ where
    it is of second order; the bound is all of it, and the rounding of the sums over the step. Corners have none.
    """
    case, layer = setting.case, setting.float_layer
    smooth = all((one if isinstance(one, str) else one[0]) in ("sigmoid", "tanh", "softplus", "scaled_tanh", "softsign")
                 for one in case.activations)
    if case.kind == "rnn_relu" or not smooth or case.clip or case.scale > 1 or "softsign" in str(case.activations):
        return
    d_output = setting._normal(case.T, case.N, setting.D * setting.S)
    d_state = tuple(setting._normal(*part.shape) for part in setting.state)
    towards = [setting._normal(*a.shape) for a in (setting.x, *setting.state)]
    by_name = {name: setting._normal(*value.shape) for name, value in layer.parameters.items()}
    twin = copy.copy(layer)

    def loss(distance):
        x, *state = [a + distance * b for a, b in zip((setting.x, *setting.state), towards)]
        twin.load_state_dict({name: value + distance * by_name[name] for name, value in layer.parameters.items()})
        arguments = setting.arguments() | {"state": setting.state_argument(tuple(state))}
        output, last, _ = twin.forward(setting.external(x), rng=case.seed, **arguments)
        products = [weight * value for weight, value in zip((d_output, *d_state),
                                                            (setting.internal(output), *setting.parts(last)))]
        return sum(map(np.sum, products)), sum(np.abs(product).sum() for product in products)

    *_, cache = layer.forward(setting.external(setting.x), rng=case.seed,
                              **setting.arguments() | {"state": setting.state_argument(setting.state)})
    grads = layer.backward(cache, setting.external(d_output), setting.state_argument(d_state))
    got = sum(float(np.sum(a * b)) for a, b in zip(
        (setting.internal(grads.input), *setting.parts(grads.state), *grads.parameters.values()),
        (*towards, *(by_name[name] for name in grads.parameters))))
    (one, size), (two, _), (three, _), (four, _) = (loss(h) for h in (2e-4, -2e-4, 1e-4, -1e-4))
    coarse, fine = (one - two) / 4e-4, (three - four) / 2e-4
    bound = abs(coarse - fine) + 1e-10 * size + 1e-13 * (1 + size) / 1e-4
    assert abs(got - fine) <= bound, f"derivative {got!r} for {fine!r} +- {bound:.3g}"


# ---- A case ---------------------------------------------------------------------------------------

def run(case):
    """All checks of a case, each with random numbers of its own: they do not depend on which others there are."""
    import fuzz_relations  # noqa: F401   adds its own
    setting = Setting(case)
    with using_isa(case.isa), fastrnn.threads(case.threads):
        for name in case.checks:
            setting.rng = np.random.default_rng([case.seed, zlib.crc32(name.encode())])
            CHECKS[name](setting)
