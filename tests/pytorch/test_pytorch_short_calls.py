"""Calls without gradients on few rows, which go by the compiled way of short calls: as torch's, whatever is brought."""
import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import fastrnn.pytorch  # noqa: E402

KINDS = ("LSTM", "GRU", "RNN")
OPTIONS = [{}, {"num_layers": 2}, {"batch_first": True}, {"bias": False}, {"dtype": torch.float64}]


def pair(kind, *sizes, **options):
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(*sizes, **options).eval()
    ours = copy.deepcopy(theirs)
    fastrnn.pytorch.accelerate(ours)
    return theirs, ours


def flat(result):
    output, state = result
    return [output, *(state if isinstance(state, tuple) else (state,))]


def assert_as_torch(theirs, ours, *arguments):
    for a, b in zip(flat(theirs(*arguments)), flat(ours(*arguments)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)


def state_of(layer, *rows):
    states = [torch.randn(layer.num_layers, *rows, layer.hidden_size, dtype=layer.weight_ih_l0.dtype)
              for _ in range(1 + (layer.mode == "LSTM"))]
    return tuple(states) if len(states) == 2 else states[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_short_calls_are_as_torchs(kind, options, passes):
    theirs, ours = pair(kind, 5, 12, **options)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for T, N in ((1, 1), (4, 1), (1, 3), (6, 3), (1, 200)):
                x = torch.randn(*(N, T) if theirs.batch_first else (T, N), 5, dtype=theirs.weight_ih_l0.dtype)
                assert_as_torch(theirs, ours, x)
                assert_as_torch(theirs, ours, x, state_of(theirs, N))
            assert_as_torch(theirs, ours, x[0], state_of(theirs))
    assert "short call" in {name for name, *_ in passes}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_changed_in_any_way_are_followed(kind):
    theirs, ours = pair(kind, 3, 8)
    x = torch.randn(2, 1, 3)
    with torch.no_grad():
        assert_as_torch(theirs, ours, x)
        for layer in (theirs, ours):
            layer.weight_hh_l0.data.copy_(torch.full_like(layer.weight_hh_l0, 0.25))
        assert_as_torch(theirs, ours, x)
        for layer in (theirs, ours):
            layer.bias_ih_l0 = nn.Parameter(torch.linspace(-1, 1, len(layer.bias_ih_l0)))
        assert_as_torch(theirs, ours, x)
        for layer in (theirs, ours):
            layer.double()
        assert_as_torch(theirs, ours, x.double())


@pytest.mark.parametrize("kind", KINDS)
def test_odd_tensors_and_errors_are_torchs(kind):
    theirs, ours = pair(kind, 4, 8)
    with torch.no_grad():
        wide = torch.randn(3, 2, 8)
        assert_as_torch(theirs, ours, wide[..., ::2])
        assert_as_torch(theirs, ours, torch.randn(2, 3, 4).transpose(0, 1))
        assert_as_torch(theirs, ours, nn.Parameter(torch.randn(3, 2, 4)))
        for wrong in (torch.randn(3, 2, 5), torch.randn(3), torch.randn(3, 2, 4).double(), torch.randn(0, 1, 4)):
            errors = []
            for layer in (theirs, ours):
                try:
                    errors.append(tuple(layer(wrong)[0].shape))
                except (RuntimeError, ValueError) as error:
                    errors.append(str(error))
            assert errors[0] == errors[1]
        h = state_of(theirs, 3)
        for layer in (theirs, ours):
            with pytest.raises(RuntimeError, match="Expected hidden"):
                layer(torch.randn(3, 2, 4), h)


@pytest.mark.parametrize("kind", KINDS)
def test_results_share_no_memory_between_calls(kind):
    _, ours = pair(kind, 4, 8)
    with torch.no_grad():
        first = flat(ours(torch.ones(1, 1, 4)))
        kept = [t.clone() for t in first]
        second = flat(ours(-torch.ones(1, 1, 4)))
    for a, b, c in zip(first, kept, second, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    assert len({t.data_ptr() for t in first}) == len(first)


# ---- Cells ----------------------------------------------------------------------------------------

def states_of(cell, *rows, dtype=torch.float32):
    states = [torch.randn(*rows, cell.hidden_size, dtype=dtype) for _ in range(1 + isinstance(cell, nn.LSTMCell))]
    return tuple(states) if len(states) == 2 else states[0]


def assert_cell_as_torch(theirs, ours, *arguments):
    expected, new = theirs(*arguments), ours(*arguments)
    assert type(expected) is type(new)
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (expected, new)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-6)
        assert not b.requires_grad


def is_short(cell):
    return getattr(cell.__dict__.get("_fastrnn"), "short", None) is not None


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"dtype": torch.float64}], ids=str)
@pytest.mark.parametrize("kind", [f"{kind}Cell" for kind in KINDS])
def test_steps_of_cells_are_as_torchs(kind, options):
    theirs, ours = pair(kind, 5, 12, **options)
    dtype = theirs.weight_ih.dtype
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for rows in ((), (1,), (3,), (70,)):
                x = torch.randn(*rows, 5, dtype=dtype)
                assert_cell_as_torch(theirs, ours, x)
                assert_cell_as_torch(theirs, ours, x, states_of(theirs, *rows, dtype=dtype))
            x = torch.randn(5, 2, dtype=dtype).T                                    # not contiguous
            assert_cell_as_torch(theirs, ours, x, states_of(theirs, 2, dtype=dtype))
            with pytest.raises(RuntimeError):
                ours(torch.randn(1, 4, dtype=dtype))
            with pytest.raises(RuntimeError):
                ours(torch.randn(1, 5, dtype=dtype), states_of(theirs, 2, dtype=dtype))
    assert is_short(ours)


@pytest.mark.parametrize("kind", [f"{kind}Cell" for kind in KINDS])
def test_cells_follow_their_weights_and_train(kind):
    theirs, ours = pair(kind, 3, 8)
    x = torch.randn(1, 3)
    with torch.no_grad():
        assert_cell_as_torch(theirs, ours, x)
        assert is_short(ours)
        for cell in (theirs, ours):
            cell.weight_hh.data.mul_(2)
            cell.bias_ih += 1
        assert_cell_as_torch(theirs, ours, x, states_of(theirs, 1))
    new = ours(x)
    assert (new[0] if isinstance(new, tuple) else new).requires_grad
    again = copy.deepcopy(ours)
    with torch.no_grad():
        assert_cell_as_torch(theirs, again, x)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind, sizes", [("RNN", (3, 8)), ("GRU", (16, 128))], ids=str)
def test_one_step_that_trains_by_torch_is_torchs_own(kind, sizes, batch_first):
    torch.manual_seed(0)
    own = getattr(nn, kind)(*sizes, 2, batch_first=batch_first)
    fast = copy.deepcopy(own)
    fastrnn.pytorch.accelerate(fast)
    x, h = torch.randn(*((2, 1) if batch_first else (1, 2)), sizes[0]), torch.randn(2, 2, sizes[1])
    results = []
    for module in (own, fast):
        inputs = x.clone().requires_grad_(), h.clone().requires_grad_()
        output, last = module(*inputs)
        (output.sum() + (last ** 2).sum()).backward()
        results.append([output, last, *(i.grad for i in inputs), *(p.grad for p in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert torch.equal(fast(x)[0], own(x)[0])
    for wrong in ((x[..., :2], h), (x, h[:1]), (x, h[..., :2]), (x, h[:, :1]), (x.double(), h), (x, h[0]), (x[0], h)):
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            own(*wrong)
        with pytest.raises(type(theirs.value)) as ours:
            fast(*wrong)
        assert str(ours.value) == str(theirs.value)
    weights = {name: p.detach() * 2 for name, p in own.named_parameters()}      # weights that have been exchanged
    assert torch.equal(torch.func.functional_call(fast, weights, (x, h))[0],
                       torch.func.functional_call(own, weights, (x, h))[0])
