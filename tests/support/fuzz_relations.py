"""The exact relations of fuzz_checks: what must have the same bits, and what must be refused."""

import copy
import os
import pickle
import tempfile

import numpy as np
from error_bounds import Arithmetic, Weight, parameters_of
from fuzz_checks import check, refused, same, within
from helpers import LAYOUTS, using_isa

import fastrnn
from fastrnn import _core, scale
from fastrnn.nn import reference

# ---- Equal bits -----------------------------------------------------------------------------------

@check
def layouts(setting):
    """Inputs of any layout: the bits of their contiguous copies; nothing that was passed is changed."""
    expected = setting.call()
    x, other = setting.layout(setting.external(setting.x)), LAYOUTS[setting.case.other_layout]
    arguments = setting.arguments()
    arranged = {name: tuple(map(other, value)) if isinstance(value, tuple) else other(np.asarray(value))
                for name, value in arguments.items()}
    before = pickle.dumps((x, arranged))
    same(setting.call(x=x, **arranged), expected, "layouts")
    assert pickle.dumps((x, arranged)) == before, "an argument was changed"
    if not setting.case.precision:
        twin = copy.copy(setting.layer)
        twin.load_state_dict({name: other(value) for name, value in setting.layer.state_dict().items()})
        same(setting.call(twin), expected, "layouts of parameters")


@check
def forms(setting):
    """What is passed for x in another form: as its conversion up, or refused by name."""
    form, x, dtype = setting.case.form, setting.external(setting.x), setting.dtype
    if form in ("float16", "int8", "uint8", "bool", "int64"):
        with np.errstate(all="ignore"):
            x = np.clip(np.nan_to_num(x), -100, 100).astype(form)
        same(setting.call(x=x), setting.call(x=x.astype(dtype)), form)
    elif form == "big_endian":
        same(setting.call(x=x.astype(dtype.newbyteorder(">"))), setting.call(), form)
    elif form in ("list", "nested"):
        if x.size:      # without elements a list has no width
            value = x.tolist() if form == "list" else [tuple(row) for row in x]
            same(setting.call(x=value), setting.call(), form)
    elif form in ("object", "complex", "text", "none", "bfloat16"):
        import ml_dtypes
        value = {"object": lambda: x.astype(object), "complex": lambda: x.astype(complex), "text": lambda: "x",
                 "none": lambda: None, "bfloat16": lambda: x.astype(ml_dtypes.bfloat16)}[form]()
        for entry in (setting.layer, setting.float_layer.forward):
            refused(lambda entry=entry: entry(value, **setting.arguments()), ("x",), form, (TypeError,))
    elif form in ("float64", "longdouble"):
        wider = np.dtype(form)
        if wider.itemsize > dtype.itemsize:
            refused(lambda: setting.layer(x.astype(wider), **setting.arguments()), ("x",), form, (ValueError,))
        else:
            same(setting.call(x=x.astype(wider)), setting.call(), form)


@check
def threads(setting):
    with fastrnn.threads(1):
        expected = setting.call()
    for number, cpus in ((2, 0), (3, 0), (3, 3)):
        _core.assume_cpus(cpus)         # 3: teams even for work that is too little for them
        try:
            with fastrnn.threads(number):
                same(setting.call(), expected, f"{number} threads")
        finally:
            _core.assume_cpus(0)


@check
def isas(setting):
    """AVX2 and AVX-512 have the same bits where one vector holds all units; all agree on what is infinite or NaN."""
    results = {}
    for isa in fastrnn.available_isas():
        with using_isa(isa):
            results[isa] = setting.call()
    if "avx512" in results and setting.case.H * setting.dtype.itemsize <= 32:
        same(results["avx512"], results["avx2"], "AVX-512 and AVX2")


@check
def out(setting):
    """`out` of any layout, overlapping inputs or not: the bits of a call without; or refused, and nothing written."""
    expected, x = setting.call(), setting.external(setting.x)
    shape, choice = expected["output"].shape, setting.case.seed % 7
    arguments = setting.arguments()
    if choice == 0:         # one that cannot be written to or is of another kind
        bad = {"read_only": LAYOUTS["read_only"](np.ones(shape, setting.dtype)),
               "big_endian": np.ones(shape, setting.dtype.newbyteorder(">")),
               "wrong dtype": np.ones(shape, np.float64 if setting.dtype == np.float32 else np.float32),
               "wrong shape": np.ones((*shape[:-1], shape[-1] + 1), setting.dtype), "a list": np.ones(shape).tolist()}
        if np.prod(shape) > 1:
            bad["overlapping itself"] = np.broadcast_to(np.ones(1, setting.dtype), shape)
        for name, value in bad.items():
            refused(lambda value=value: setting.layer(x, out=value, **arguments), ("out",), name)
            assert np.all(np.asarray(value) == 1), f"{name}: refused, and written to"
        return
    if choice < 4:
        name = setting.case.other_layout
        target = np.ones(shape, setting.dtype)
        target = target if name in ("read_only", "big_endian") else LAYOUTS[name](target)
    else:
        x, arguments, target = _overlapping(setting, choice, x, shape)
    got, last = setting.layer(x, out=target, **arguments)
    assert got is target
    same(setting.named(got, last), expected, "out")


def _overlapping(setting, choice, x, shape):
    """(x, other arguments, out) with an out that shares memory with x, the initial state, or the mask."""
    arguments, size = setting.arguments(), int(np.prod(shape))
    shift = int(setting.rng.integers(0, 3))

    def shared(a):
        """A copy of `a`, and an `out`, in the same memory."""
        itemsize = setting.dtype.itemsize
        memory = np.zeros(max(a.nbytes, size * itemsize) + 3 * itemsize + 16, np.uint8)
        view = memory[:a.nbytes].view(a.dtype).reshape(a.shape)
        view[...] = a
        target = memory[shift * itemsize:shift * itemsize + size * itemsize].view(setting.dtype).reshape(shape)
        return view, target

    if choice == 5 and "state" in arguments:
        state = arguments["state"]
        if isinstance(state, tuple):
            which = int(setting.rng.integers(2))
            view, target = shared(state[which])
            arguments["state"] = (view, state[1]) if which == 0 else (state[0], view)
        else:
            arguments["state"], target = shared(state)
    elif choice == 6 and "reset_mask" in arguments:
        arguments["reset_mask"], target = shared(arguments["reset_mask"])
    else:
        x, target = shared(x)
    return x, arguments, target


@check
def stream(setting):
    """Steps, runs, snapshots and copies of a stream, mixed: the bits of one call; or a stream refused by name."""
    case, layer, rng = setting.case, setting.layer, setting.rng
    if case.bidirectional or case.reverse or not case.N:
        if case.N:
            refused(lambda: layer.stream(case.N), ("a",), "stream")
        else:
            refused(lambda: layer.stream(0), ("batch_size",), "stream of no rows")
        return
    output, last = layer(setting.external(setting.x), **{"state": setting.state_argument(setting.state)}
                         if case.state else {})
    expected, finals = setting.internal(output), setting.parts(last)
    live = layer.stream(case.N)
    if case.state:
        live.state = setting.state if setting.is_lstm else setting.state[0]
    t, results = 0, np.empty((case.T, case.N, setting.S), setting.dtype)
    while t < case.T:
        count = 1
        way = rng.integers(6)
        if way < 2:
            x = setting.x[t, 0] if case.N == 1 and way else setting.x[t]
            results[t] = live.step(x)
        elif way == 2:
            target = np.full((case.N, setting.S), 7, setting.dtype)
            assert live.step(LAYOUTS[case.other_layout](setting.x[t]), target) is target
            results[t] = target
        else:
            count = int(rng.integers(1, case.T - t + 1))
            block = setting.x[t:t + count]
            block = np.ascontiguousarray(block.swapaxes(0, 1)) if case.batch_first else block
            y = live.run(setting.layout(block) if way == 3 and not case.unbatched and "zero" not in case.layout
                         else block)
            results[t:t + count] = y.swapaxes(0, 1) if case.batch_first else y
        t += count
        if rng.random() < 0.3:
            live = _copied_stream(layer, live, int(rng.integers(3)))
    same(results, np.ascontiguousarray(expected), "stream")
    same(parts_of(live), tuple(map(np.ascontiguousarray, finals)), "state of a stream")
    _reset_rows(setting, live)


@check
def pool(setting):
    """Rows of a pool, of any keys and in any order: the bits of each key's own stream; or a pool refused by name."""
    case, layer, rng = setting.case, setting.layer, setting.rng
    if case.bidirectional or case.reverse:
        refused(lambda: scale.StreamPool(layer, 2), ("a",), "pool")
        return
    capacity, store = int(rng.integers(1, 6)), {} if rng.random() < 0.5 else None
    pool, alone = scale.StreamPool(layer, capacity, store=store), {}
    names = ["a", 7, ("b", 1.5), None, b"c", 0.25][:6 if store is not None else capacity]
    for t in range(case.T):
        # as many keys as the pool holds, each perhaps more than once; the store has the others' streams
        chosen = rng.choice(len(names), min(capacity, len(names)), replace=False)
        keys = [names[i] for i in rng.choice(chosen, case.N)]
        x = setting.x[t]
        expected = np.array([alone.setdefault(key, layer.stream()).step(row) for key, row in zip(keys, x)],
                            setting.dtype).reshape(case.N, setting.S)
        target = np.full((case.N, setting.S), 7, setting.dtype) if rng.random() < 0.3 else None
        result = pool.step(keys, LAYOUTS[case.other_layout](x), target)
        assert target is None or result is target
        same(result, expected, "pool")
        if rng.random() < 0.2:
            again = scale.StreamPool(layer, capacity, store=store)
            again.restore(pool.snapshot())
            pool = again


def parts_of(live):
    return live.state if isinstance(live.state, tuple) else (live.state,)


def _copied_stream(layer, live, way):
    if way == 0:
        return layer.restore(live.snapshot())
    if way == 1:
        return pickle.loads(pickle.dumps(live))
    twin = layer.stream(live.batch_size)
    twin.state = live.state
    return twin


def _reset_rows(setting, live):
    """Reset rows are those of a new stream; a call that is refused leaves the state as it is."""
    before = parts_of(live)
    refused(lambda: live.step(np.zeros((setting.case.N, setting.case.I + 1), setting.dtype)), ("x",), "step")
    refused(lambda: live.step(None), ("x",), "step")
    refused(lambda: live.run(np.zeros((2, setting.case.N, setting.case.I + 1), setting.dtype)), ("block", "x"), "run")
    same(parts_of(live), before, "state after a refusal")
    rows = np.flatnonzero(setting.rng.random(setting.case.N) < 0.5)
    live.reset(rows)
    for part, old in zip(parts_of(live), before):
        old[:, rows] = 0
        same(part, old, "reset rows")


@check
def chunks(setting):
    """A call cut in two at any step, the state carried over; of a reversed layer the later part comes first."""
    case = setting.case
    if case.bidirectional or case.lengths or (case.reverse and case.num_layers > 1):
        return
    expected = setting.call()
    cut = int(setting.rng.integers(0, case.T + 1))
    state, outputs = setting.state_argument(setting.state), []
    pieces = [slice(0, cut), slice(cut, None)]
    for piece in reversed(pieces) if case.reverse else pieces:
        options = {} if setting.resets is None else {
            "reset_mask": setting.resets[piece, 0] if case.unbatched else setting.resets[piece]}
        y, state = setting.layer(setting.external(setting.x[piece]), state, **options)
        outputs.append(setting.internal(y))
    whole = np.concatenate(outputs[::-1] if case.reverse else outputs)
    same(setting.named(setting.external(whole), state), expected, "two pieces")


@check
def rows(setting):
    """A row alone, and rows in another order: the same bits as in the batch."""
    case = setting.case
    if case.unbatched or not case.N:
        return
    expected = setting.call()
    order = setting.rng.permutation(case.N)
    for chosen in ([int(setting.rng.integers(case.N))], order):
        options = {"state": setting.state_argument(tuple(np.ascontiguousarray(part[:, chosen])
                                                         for part in setting.state))}
        if setting.lengths is not None:
            options["lengths"] = setting.lengths[chosen].tolist()
        if setting.resets is not None:
            options["reset_mask"] = setting.resets[:, chosen]
        output, last = setting.layer(setting.external(setting.x[:, chosen]), **options)
        axis = 0 if case.batch_first else 1
        wanted = {"output": np.ascontiguousarray(np.take(expected["output"], chosen, axis))}
        wanted |= {name: expected[name][:, chosen] for name in ("h_n", "c_n") if name in expected}
        same(setting.named(output, last), wanted, "some rows")


@check
def lengths(setting):
    """A row with a length is the row cut short; full lengths are none; what lies past a length is not looked at."""
    case = setting.case
    if not case.N or case.unbatched:
        return
    own = setting.rng.integers(0, case.T + 1, case.N) if setting.lengths is None else setting.lengths
    base = {name: value for name, value in setting.arguments().items() if name != "lengths"}
    ragged = setting.named(*setting.layer(setting.external(setting.x), lengths=own, **base))
    junk = setting.x.copy()
    for n, length in enumerate(own):
        junk[length:, n] = np.nan
    form = [own, own.tolist(), own.astype(np.uint8), own.astype(">i2"), own.astype(np.uint64)][case.seed % 5]
    same(setting.named(*setting.layer(setting.external(junk), lengths=form, **base)), ragged, "what is past a length")
    n = int(setting.rng.integers(case.N))
    row, options = slice(n, n + 1), {}
    if setting.resets is not None:
        options["reset_mask"] = setting.resets[:own[n], row]
    options["state"] = setting.state_argument(tuple(np.ascontiguousarray(part[:, row]) for part in setting.state))
    output, last = setting.layer(setting.external(setting.x[:own[n], row]), **options)
    got = setting.internal(ragged["output"])[:, n]
    same(np.ascontiguousarray(got[:own[n]]), np.ascontiguousarray(setting.internal(output)[:, 0]), "a row cut short")
    assert not got[own[n]:].any(), "output past a length"
    for part, name in zip(setting.parts(last), ("h_n", "c_n")):
        same(ragged[name][:, row], part, "last state of a row cut short")
    full = setting.named(*setting.layer(setting.external(setting.x), lengths=np.full(case.N, case.T), **base))
    same(full, setting.named(*setting.layer(setting.external(setting.x), **base)), "full lengths")


@check
def cells(setting):
    """The cell, step by step: the layer's bits, gradients among them."""
    case = setting.case
    if case.bidirectional or case.reverse or case.num_layers > 1 or case.proj_size or case.precision or not case.N:
        return
    options = {name: value for name, value in setting.options.items()
               if name not in ("batch_first", "bidirectional", "reverse", "dropout", "proj_size")}
    cell = getattr(fastrnn, setting.cls.__name__ + "Cell")(case.I, case.H, rng=0, **options)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in setting.layer.parameters.items()})
    _, last = setting.layer(setting.external(setting.x), setting.state_argument(setting.state))
    one = case.unbatched
    state = tuple(np.ascontiguousarray(part[0, 0] if one else part[0]) for part in setting.state)
    for t in range(case.T):
        x = setting.x[t, 0] if one else setting.x[t]
        given = state if setting.is_lstm else state[0]
        new = cell(LAYOUTS[case.other_layout](x), given)
        target = tuple(np.full(part.shape, 7, setting.dtype) for part in state)
        target = target if setting.is_lstm else target[0]
        assert cell(x, given, target) is target
        same(target, new, "out of a cell")
        kept, cache = cell.forward(x, given)
        same(kept, new, "forward of a cell")
        state = new if setting.is_lstm else (new,)
    same(tuple(part[None] if one else part for part in state),
         tuple(np.ascontiguousarray(part[0]) for part in setting.parts(last)), "cell")
    if case.T:
        d_state = tuple(setting._normal(*part.shape) for part in state)
        grads = cell.backward(cache, d_state if setting.is_lstm else d_state[0])
        wrap = (lambda a: a[None, None]) if one else (lambda a: a[None])
        given = given if setting.is_lstm else (given,)
        layer_state = tuple(map(wrap, given)) if setting.is_lstm else wrap(given[0])
        whole = copy.copy(setting.layer)
        whole.batch_first = False
        y, _, layer_cache = whole.forward(wrap(x), layer_state)
        wanted = whole.backward(layer_cache, np.zeros_like(y),
                                tuple(map(wrap, d_state)) if setting.is_lstm else wrap(d_state[0]))
        same(grads.input, wanted.input[0, 0] if one else wanted.input[0], "dx of a cell")
        same({name + "_l0": value for name, value in grads.parameters.items()}, wanted.parameters, "cell's gradients")


@check
def copies(setting):
    """Copies, pickles and files: the same bits."""
    expected, layer = setting.call(), setting.layer
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(setting.call(twin), expected, "a copy")
    if setting.case.seed % 4 == 0:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "layer.npz")
            layer.save(path)
            loaded = fastrnn.load(path)
        assert repr(loaded) == repr(layer)
        same(setting.call(loaded), expected, "a file")


@check
def sequential(setting):
    """Linear, the layer and Linear in a Sequential: the bits of one after the other; its stream and its gradients."""
    case, layer = setting.case, setting.layer
    if case.unbatched or case.dropout:
        return
    width = setting.D * setting.S
    first = fastrnn.Linear(case.I, case.I, rng=1, dtype=setting.dtype)
    last = fastrnn.Linear(width, 3, rng=2, dtype=setting.dtype)
    if case.precision:
        first, last = first.quantized(case.precision), last.quantized(case.precision)
    model, x, options = fastrnn.Sequential(first, layer, last), setting.external(setting.x), setting.arguments()
    state = options.pop("state", None)
    y, finals = layer(first(x)[0], state, **options)
    wanted = last(y)[0]
    got, got_state = model(x, None if state is None else (None, state, None), **options)
    if setting.lengths is not None:     # a Sequential clears what is past a length
        inside = setting.internal(got)[np.arange(case.T)[:, None] < setting.lengths]
        same(inside, setting.internal(wanted)[np.arange(case.T)[:, None] < setting.lengths], "sequential")
    else:
        same(got, wanted, "sequential")
    same(setting.parts(got_state[1]), setting.parts(finals), "state of a sequential")
    if case.N and not case.bidirectional and not case.reverse and not setting.wild:
        live = model.stream(case.N)
        whole = setting.internal(model(x)[0])
        for t in range(case.T):
            same(live.step(setting.x[t]), np.ascontiguousarray(whole[t]), "stream of a sequential")
    if not case.precision:
        got, _, cache = model.forward(x, **options)
        model.backward(cache, np.ones_like(got))


@check
def pointwise(setting):
    """Linear within the oracle's bounds, also narrow and backward; Embedding exactly; `state` in other forms."""
    case, dtype = setting.case, setting.dtype
    by = Arithmetic(dtype, case.I, setting.wild, case.precision == "bfloat16")
    linear = fastrnn.Linear(case.I, case.H, case.bias, rng=case.seed, dtype=dtype)
    narrow = linear.quantized(case.precision) if case.precision else linear
    x = setting.x
    y = narrow(x)[0]
    p = parameters_of({name.replace("weight", "weight_ih").replace("bias", "bias_ih")
                       .replace("scale", "scale_ih"): value for name, value in narrow.parameters.items()}, "", by)
    with np.errstate(all="ignore"):
        bounded = reference._affine(p, "ih", by.exact(x.reshape(-1, case.I)))
    within(np.ascontiguousarray(y).reshape(-1, case.H), bounded, "Linear", dtype)
    same(narrow(setting.layout(setting.external(x)))[0], setting.external(y), "Linear of another layout")
    by = Arithmetic(dtype, case.H + case.T * case.N)
    if not setting.wild:
        d = setting._normal(*y.shape)
        cache = linear.forward(x)[2]
        grads = linear.backward(cache, d)
        flat, weight = by.exact(d.reshape(-1, case.H)), Weight(linear.parameters["weight"], by)
        within(grads.input.reshape(-1, case.I), flat @ weight, "dx of Linear", dtype)
        within(grads.parameters["weight"], flat.T @ by.exact(x.reshape(-1, case.I)), "gradient of Linear", dtype)
        if case.bias:
            within(grads.parameters["bias"], flat.sum(axis=0), "gradient of Linear's bias", dtype)
    table = fastrnn.Embedding(case.I, case.H, rng=case.seed, dtype=dtype)
    whole = setting.rng.integers(0, case.I, (case.T, case.N)).astype(setting.rng.choice(["u1", "i2", ">i4", "i8"]))
    y, _, cache = table.forward(whole)
    same(y, table.parameters["weight"][whole.astype(int)], "Embedding")
    d = setting._normal(*y.shape)
    weight = table.backward(cache, d).parameters["weight"]
    chosen = by.exact((whole.reshape(-1, 1) == np.arange(case.I)).T.astype(float))
    within(weight, chosen @ by.exact(d.reshape(-1, case.H)), "gradient of Embedding", dtype)
    for bad in (np.full((1, 1), case.I), np.full((1, 1), -1), np.full((1, 1), 0.5)):
        refused(lambda bad=bad: table(bad), ("x",), "Embedding")


@check
def states(setting):
    """The initial state in other forms: as its conversion up; zeros are none."""
    zeros = setting.call(state=setting.state_argument(setting.zeros))
    same(setting.call(state=None), zeros, "a state of zeros")
    half = tuple(part.astype(np.float16) for part in setting.state)
    wanted = setting.call(state=setting.state_argument(tuple(part.astype(setting.dtype) for part in half)))
    same(setting.call(state=setting.state_argument(half)), wanted, "a state of float16")
    if all(part.size for part in half):
        lists = tuple(part.tolist() for part in (setting.state_argument(half) if setting.is_lstm else
                                                 (setting.state_argument(half),)))
        same(setting.call(state=list(lists) if setting.is_lstm else lists[0]), wanted, "a state of lists")
    for bad in (np.array("x"), setting.state[0].astype(complex)):
        refused(lambda bad=bad: setting.layer(setting.external(setting.x), (bad, bad) if setting.is_lstm else bad),
                ("state",), "a state that is none")


@check
def packed(setting):
    """Packed rows, as torch packs them, through the compiled passes: the bits of the padded batch."""
    case, layer = setting.case, setting.layer
    if not case.N or not case.T or case.num_layers > 1 or setting.wild or case.precision:
        return
    falling = np.sort(setting.rng.integers(0, case.T + 1, case.N))[::-1].astype(np.int64).copy()

    def pack(a):
        return np.concatenate([a[t, :np.count_nonzero(t < falling)] for t in range(case.T)])

    h, c = (*setting.state, None)[:2]
    dy = setting._normal(case.T, case.N, setting.D * setting.S)
    d_state = (*(setting._normal(*part.shape) for part in setting.state), None)[:2]
    results = []
    for batch, change in ((_core.Batch(case.T, case.N, falling, np.arange(case.N)), np.ascontiguousarray),
                          (_core.Batch(case.T, case.N, falling, None, True), pack)):
        gradient, y = change(dy), np.full_like(change(dy), np.nan)
        h_n, c_n, saved = _core.forward_layer(layer._packed()[0], batch, change(setting.x), h, c, None, y, None, True,
                                              case.threads, layer.reverse)
        dx, dh, dc, grads = _core.backward_layer(saved, gradient, *d_state, case.threads)
        results.append(((y, dx), [part for part in (h_n, c_n, dh, dc) if part is not None], grads))
    (padded, states, grads), (rows_, states_, grads_) = results
    inside = np.arange(case.T)[:, None] < falling
    same(tuple(rows_), tuple(np.ascontiguousarray(part[inside]) for part in padded), "packed rows")
    same(tuple(states_), tuple(states), "states of packed rows")
    for one, other in zip(grads_, grads):
        same(one, other, "gradients of packed rows")


# ---- Refusals -------------------------------------------------------------------------------------

def _bad_arguments(setting):
    """(names the message may begin with, changed arguments) of calls that are to be refused."""
    case, x = setting.case, setting.external(setting.x)
    yield ("x",), {"x": np.zeros((*x.shape[:-1], case.I + 1), setting.dtype)}
    yield ("x",), {"x": x.reshape(1, 1, *x.shape)}
    yield ("state",), {"state": 3 if setting.is_lstm else np.zeros((7, 7, 7, 7), setting.dtype)}
    yield ("state",), {"state": setting.state_argument(tuple(part[..., 1:] for part in setting.state))}
    if setting.is_lstm:
        yield ("state",), {"state": (setting.state_argument(setting.state)[0], None)}
        yield ("return_cell_states",), {"return_cell_states": 1}
    if setting.dtype == np.float32:
        yield ("state",), {"state": setting.state_argument(tuple(part.astype(float) for part in setting.state))}
    yield ("lengths",), {"lengths": np.full(case.N, case.T + 1)} if case.N else {"lengths": [1]}
    yield ("lengths",), {"lengths": np.full(case.N, -1)} if case.N else {"lengths": [0]}
    yield ("lengths",), {"lengths": np.full(case.N + 1, case.T)}
    yield ("lengths",), {"lengths": np.full(max(case.N, 1), 0.5)}
    yield ("reset_mask",), {"reset_mask": np.zeros((case.T + 1, case.N), bool)}
    yield ("reset_mask",), {"reset_mask": np.zeros((case.T, case.N), np.int8)}


@check
def refusals(setting):
    """Arguments that are nearly right: refused by name, and the next good call has the bits of the one before."""
    expected = setting.call()
    out = np.full(expected["output"].shape, 7, setting.dtype)
    x = setting.external(setting.x)
    for names, changes in _bad_arguments(setting):
        arguments = {**setting.arguments(), "x": x, "out": out, **changes}
        refused(lambda arguments=arguments: setting.layer(**arguments), names, "a bad argument")
        assert (out == 7).all(), "refused, and out was written to"
    layer = setting.float_layer
    output, _, cache = layer.forward(x, **setting.arguments())
    refused(lambda: layer.backward(cache, np.zeros((*output.shape, 1), setting.dtype)), ("d_output",), "d_output")
    refused(lambda: layer.backward(None, output), ("cache",), "cache")
    refused(lambda: copy.copy(layer).backward(cache, output), ("cache",), "another layer's cache")
    values = layer.state_dict()
    name = next(iter(values))
    for bad in ({**values, name: values[name][:-1]}, {**values, "unknown": values[name]},
                {key: value for key, value in values.items() if key != name}, {**values, name: None}):
        refused(lambda bad=bad: layer.load_state_dict(bad), (name, "state_dict"), "parameters")
    same(setting.call(), expected, "a call after refusals")
