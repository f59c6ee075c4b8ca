"""What the tests of fastrnn.pytorch share: torch's modules and ours with equal parameters, and all they give."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import fastrnn.pytorch

OURS = {name: getattr(fastrnn.pytorch, name) for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")}
LAYERS = {"LSTM": {}, "GRU": {}, "RNN": {}, "relu": {"nonlinearity": "relu"}, "projection": {"proj_size": 4}}
CLASSES = {"relu": "RNN", "projection": "LSTM"}
CELLS = {"LSTMCell": {}, "GRUCell": {}, "RNNCell": {}, "reluCell": {"nonlinearity": "relu"}}
T, N, I, H = 6, 5, 7, 19        # H: more than a vector on every instruction set
LENGTHS = [4, 6, 1, 6, 3]
DTYPES = {"float32": (torch.float32, 2e-5), "float64": (torch.float64, 1e-11)}


def pair(kind, *sizes, dtype=torch.float64, **options):
    """torch's module and ours, with equal parameters."""
    name = CLASSES.get(kind, kind.replace("relu", "RNN"))
    options = {**(LAYERS | CELLS)[kind], **options}
    theirs = getattr(nn, name)(*(sizes or (I, H)), dtype=dtype, **options)
    ours = OURS[name](*(sizes or (I, H)), dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def numbers(*shape, dtype=torch.float64, grad=True):
    return torch.randn(*shape, dtype=dtype).requires_grad_(grad)


def states_for(module, *rows, grad=True):
    """h_0 (and c_0) with `rows` between the layers' axis and the features'; a cell's with rows alone."""
    sizes = [getattr(module, "proj_size", 0) or module.hidden_size]
    sizes += [module.hidden_size] * isinstance(module, (nn.LSTM, nn.LSTMCell))
    first = () if isinstance(module, nn.RNNCellBase) else (module.num_layers * (1 + module.bidirectional),)
    dtype = next(module.parameters()).dtype
    return [numbers(*first, *rows, size, dtype=dtype, grad=grad) for size in sizes]


def call(module, x, states):
    """Output (of a PackedSequence: its data) and final states in one list."""
    pairs = isinstance(module, (nn.LSTM, nn.LSTMCell))
    results = module(x, tuple(states) if pairs else states[0]) if states else module(x)
    if isinstance(module, nn.RNNCellBase):
        return [*results] if pairs else [results]
    output, final = results
    return [output.data if isinstance(output, PackedSequence) else output, *(final if pairs else [final])]


def everything(module, x, states, leaves, seed=0):
    """Results of a call, and the gradients of a sum of them with random weights."""
    torch.manual_seed(seed)
    results = call(module, x, states)
    weights = np.random.default_rng(seed)
    loss = sum((r * torch.from_numpy(weights.standard_normal(r.shape)).to(r.dtype)).sum() for r in results)
    return [*results, *torch.autograd.grad(loss, [*leaves, *states, *module.parameters()], retain_graph=True)]


def assert_close(found, expected, tolerance):
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), i
        bound = tolerance * max(1, b.abs().max().item()) if b.numel() else 0
        assert (a - b).abs().max().item() <= bound if b.numel() else True, (i, (a - b).abs().max().item(), bound)


def runs_kernels(tensor):
    """Whether the last operation, or the last but a view of it, was a pass of the kernels."""
    node = tensor.grad_fn
    while node is not None and "FastRNN" not in node.name():
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None


gains = fastrnn.pytorch.modules._gains
