"""How far back a loss reaches: the norms of dL/dh_t over time, and of the steps' Jacobians.

``gradient_flow`` walks every layer step by step (``_Walk``), forward and back, in float64 whatever the model's dtype: a
gradient that has shrunk to 1e-100 is still told from zero.
"""

from dataclasses import dataclass

import numpy as np

from ._base import validation as check
from ._base.figures import new_figure
from .nn import files
from .nn.modules import Embedding, Linear, Sequential
from .nn.parameters import NAMES, PLAIN, UNDRAWN, layer_suffix
from .nn.recurrent import Recurrent

__all__ = ["GradientFlow", "LayerFlow", "gradient_flow"]

_AT_ONCE = 2 ** 14      # rows of a kernel call that makes Jacobians: bounds the memory


@dataclass(frozen=True)
class LayerFlow:
    """The gradient along one direction of one layer. T steps, N rows; NaN past a row's length.

    Attributes
    ----------
    hidden : array [T, N]
        Norm of dL/dh_t, of the state after step t.
    cell : array [T, N] or None
        Norm of dL/dc_t (LSTM), h_t held: what reaches c_t by way of later steps alone.
    jacobian : array [T, R]
        Spectral norm of ds_t/ds_{t-1}, of the first R rows; s is h, or (h, c) for an LSTM. A reversed direction walks
        from the end: there it is ds_t/ds_{t+1}.
    reversed : bool
        Whether this direction walks from the end.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> flow = gradient_flow(fastrnn.RNN(1, 4, rng=0), np.zeros((10, 1), np.float32))
    >>> flow["l0"].hidden.shape, flow["l0"].cell, flow["l0"].jacobian.shape
    ((10, 1), None, (10, 1))
    """

    hidden: np.ndarray
    cell: np.ndarray | None
    jacobian: np.ndarray
    reversed: bool = False

    @property
    def rate(self):
        """The factor that |dL/dh_t| changes by for each step further from the loss: from the last step to the first,
        the geometric mean over steps and rows. Below 1 it vanishes, above it explodes; NaN where T is 1."""
        hidden = self.hidden[::-1] if self.reversed else self.hidden
        factors = []
        for row in hidden.T:
            row = row[~np.isnan(row)]
            if len(row) > 1 and row[-1] > 0:
                with np.errstate(divide="ignore"):
                    factors.append((np.log(row[0]) - np.log(row[-1])) / (len(row) - 1))
        return float(np.exp(np.mean(factors))) if factors else float("nan")


@dataclass(frozen=True)
class GradientFlow:
    """What ``gradient_flow`` returns: one ``LayerFlow`` by name, in the order of the layers.

    A layer's names are "l0", "l1", "l0_reverse" ..., as at the ends of its parameters' names; those in a Sequential
    have the module's number before: "0.l0". ``print`` shows a table, ``plot`` draws it.

    Attributes
    ----------
    layers : dict of str to LayerFlow

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.random.default_rng(0).standard_normal((50, 2, 3))
    >>> flow = gradient_flow(fastrnn.LSTM(3, 8, num_layers=2, dtype=np.float64, rng=0), x)
    >>> list(flow.layers)
    ['l0', 'l1']
    >>> bool((flow["l1"].hidden[0] < 1e-6 * flow["l1"].hidden[-1]).all())      # it has vanished
    True
    """

    layers: dict

    def __getitem__(self, name):
        return self.layers[name]

    def __iter__(self):
        return iter(self.layers)

    def __str__(self):
        width = max(5, *map(len, self.layers))
        lines = [f"{'layer':{width}}  steps  |dL/dh| at the first  and the last step  factor a step  |Jacobian|, "
                 "median"]
        for name, flow in self.layers.items():
            hidden = over_rows(flow.hidden)
            jacobian = flow.jacobian[~np.isnan(flow.jacobian)]
            lines.append(f"{name:{width}}  {len(hidden):5}  {hidden[0]:21.3g}  {hidden[-1]:17.3g}  {flow.rate:13.3f}  "
                         f"{np.median(jacobian) if jacobian.size else np.nan:18.3f}")
        return "\n".join(lines)

    def plot(self, axes=None):
        """Draws |dL/dh_t| (and |dL/dc_t|, dashed) and the Jacobians' norms over t, one line a layer.

        Parameters
        ----------
        axes : pair of matplotlib.axes.Axes, optional
            For the gradients and for the Jacobians; a new figure's if not given.

        Returns
        -------
        pair of matplotlib.axes.Axes
            ``flow.plot()[0].figure.savefig(path)`` writes the figure. Rows are joined by the root of their mean square.
            What is exactly zero is not drawn: the axis is logarithmic.

        Raises
        ------
        ImportError
            matplotlib is missing: ``pip install fastrnn[plot]``.
        """
        if axes is None:
            axes = new_figure("GradientFlow.plot", 8, 6).subplots(2, 1, sharex=True)
        gradients, jacobians = axes
        for number, (name, flow) in enumerate(self.layers.items()):
            color = f"C{number % 10}"
            gradients.plot(_drawn(flow.hidden), color=color, label=f"{name}: dL/dh")
            if flow.cell is not None:
                gradients.plot(_drawn(flow.cell), color=color, linestyle="--", linewidth=1, label=f"{name}: dL/dc")
            if flow.jacobian.size:
                jacobians.plot(_drawn(flow.jacobian), color=color, linewidth=1, label=name)
        gradients.set(yscale="log", ylabel="norm of the gradient")
        gradients.legend(fontsize=8, frameon=False, ncols=1 + (len(self.layers) > 4))
        jacobians.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
        low, high = jacobians.get_ylim()
        jacobians.set(xlabel="step t", ylabel="spectral norm of a step's Jacobian",
                      ylim=(min(low, 0.9), max(high, 1.1)))
        for ax in axes:
            ax.grid(alpha=0.25)
        return gradients, jacobians


def gradient_flow(model, x, d_output=None, *, state=None, lengths=None, reset_mask=None, jacobian_rows=1):
    """The norms of dL/dh_t and of ds_t/ds_{t-1} at every step t, layer by layer.

    By the chain rule a loss L reaches the state after step t by way of every later one:

        dL/dh_t = dL/dy_t + (ds_{t+1}/ds_t)^T dL/ds_{t+1}

    where y_t is what the layer puts out at step t, and s_t its state: h_t, or (h_t, c_t) for an LSTM. So L reaches
    step t from step T through the product of T - t Jacobians: where their spectral norms stay below 1 its share
    vanishes at least as fast as their product (Bengio et al. 1994; for the plain RNN, whose Jacobian is
    diag(1 - h_t^2) W_hh, Pascanu et al. 2013); norms above 1 are necessary for it to explode, not sufficient.

    Parameters
    ----------
    model : RNN, LSTM, GRU or Sequential
        Dropout does not act here.
    x : array
        As for ``model.forward``: [T, N, I], [N, T, I] with batch_first, or [T, I].
    d_output : array, or function of the output, optional
        dL/doutput, shaped as the model's output, or what makes it: ``lambda y: fastrnn.losses.MSE()(y, target)[1]``.
        If not given, L is the sum of each row's output at its last valid step.
    state, lengths, reset_mask : optional
        As for ``model.forward``.
    jacobian_rows : int
        Rows, from the first, whose Jacobians are computed. Each takes a singular value decomposition a step, exact
        and in the order of H^3. 0: none.

    Returns
    -------
    GradientFlow

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; also no step, or no row, in x.

    Notes
    -----
    All is computed in float64 from the model's parameters. Jacobians are made by the kernels' own backward pass, a row
    of them a product: options such as peepholes, clip or other activations are in them.

    References
    ----------
    Bengio, Simard & Frasconi (1994), Learning long-term dependencies with gradient descent is difficult. IEEE
    Transactions on Neural Networks 5(2).
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks. ICML.

    Examples
    --------
    A plain RNN beside an LSTM whose forget gates start open:

    >>> import numpy as np, fastrnn
    >>> x = np.random.default_rng(0).standard_normal((100, 4, 2), np.float32)
    >>> lstm = fastrnn.LSTM(2, 16, rng=0)
    >>> with lstm.updating() as p:
    ...     p["bias_ih_l0"][16:32] += 5
    >>> for layer in (fastrnn.RNN(2, 16, rng=0), lstm):
    ...     hidden = gradient_flow(layer, x)["l0"].hidden.mean(1)
    ...     print(type(layer).__name__, "vanishes" if hidden[0] < 1e-9 * hidden[-1] else "carries on")
    RNN vanishes
    LSTM carries on
    """
    jacobian_rows = check.size(jacobian_rows, "jacobian_rows", least=0)
    chain = _Chain(model, x, state, lengths, reset_mask)
    return GradientFlow(chain.flows(chain.gradient(d_output), jacobian_rows))


# ---- One direction of one layer ------------------------------------------------------------------

class _Walk:
    """A direction of a layer of a model, walked step by step: keeps every state, and what going back needs.

    x [T, N, I], state (h_0,) or (h_0, c_0) of [N, ...] each, lengths [N], reset_mask [T, N] or None. All arrays of a
    reversed direction are turned in here, so that it walks forward, and its results are turned out again.
    """

    def __init__(self, layer, number, direction, x, state, lengths, reset_mask):
        self.cell = _direction(layer, number, direction, x.shape[2])
        self.lengths, self.reversed = lengths, direction == 1 or layer.reverse
        self.x, self.reset_mask = self.turned(x), self.turned(reset_mask)
        T, N, _ = x.shape
        self.valid = np.arange(T)[:, None] < lengths
        self.states, self.caches = [tuple(state)], []
        output = np.empty((T, N, self.cell._state_size))
        for t in range(T):
            output[t:t + 1], after, cache = self.step(self.x[t], self.states[t], self.reset_mask[t],
                                                      self.valid[t].astype(int))
            self.states.append(after)
            self.caches.append(cache)
        self.output = self.turned(output)

    def turned(self, a):
        """Each row's valid steps from the last to the first, if this direction is reversed. a may have fewer rows."""
        if not self.reversed:
            return a
        t, lengths = np.arange(len(a))[:, None], self.lengths[:a.shape[1]]
        return a[np.where(t < lengths, lengths - 1 - t, t), np.arange(a.shape[1])]

    def step(self, x, state, reset_mask, lengths=None):
        """One step of rows x [rows, I] from (h,) or (h, c): output, the state after it, cache."""
        given = state[0][None] if len(state) == 1 else tuple(part[None] for part in state)
        output, after, cache = self.cell.forward(x[None], given, lengths, reset_mask[None])
        return output, tuple(part[0] for part in (after if len(state) == 2 else (after,))), cache

    def back(self, cache, d_output, d_state, need_input=True):
        """dL/dx, and dL/dstate before a step from that after it."""
        given = d_state[0][None] if len(d_state) == 1 else tuple(part[None] for part in d_state)
        found = self.cell.backward(cache, d_output[None], given, need_input)
        before = found.state if len(d_state) == 2 else (found.state,)
        return None if found.input is None else found.input[0], tuple(part[0] for part in before)

    def flow(self, d_output, jacobian_rows):
        """(LayerFlow, dL/dx) of dL/doutput [T, N, S]."""
        d_output, dx = self.turned(d_output), np.empty_like(self.x)
        norms = [np.full(d_output.shape[:2], np.nan) for _ in self.states[0]]
        d_state = tuple(np.zeros_like(part) for part in self.states[0])
        for t in reversed(range(len(dx))):
            d_h, *d_c = d_state
            for into, gradient in zip(norms, (d_h + d_output[t], *d_c), strict=True):
                into[t] = np.where(self.valid[t], np.linalg.norm(gradient, axis=1), np.nan)
            dx[t], d_state = self.back(self.caches[t], d_output[t], d_state)
        hidden, cell = (*map(self.turned, norms), None)[:2]
        jacobian = self.turned(self.jacobians(jacobian_rows)) if jacobian_rows else np.empty((len(dx), 0))
        return LayerFlow(hidden, cell, jacobian, self.reversed), self.turned(dx)

    def jacobians(self, rows):
        """Spectral norms of ds_t/ds_{t-1} [T, rows], in walking order.

        Every vector of the identity, as dL/ds_t, is sent back through the step: what arrives is that row of the
        Jacobian. A row of the batch is therefore there as often as the state has components.
        """
        rows = min(rows, self.x.shape[1])
        norms = np.full((len(self.x), rows), np.nan)
        sizes = [part.shape[1] for part in self.states[0]]
        size = sum(sizes)
        identity = np.split(np.eye(size), np.cumsum(sizes)[:-1], axis=1)
        points = np.argwhere(self.valid[:, :rows])
        for chunk in np.split(points, range(max(1, _AT_ONCE // size), len(points), max(1, _AT_ONCE // size))):
            t, n = chunk.T
            before = [np.repeat(np.stack([self.states[i][part][j] for i, j in chunk]), size, 0)
                      for part in range(len(sizes))]
            _, _, cache = self.step(np.repeat(self.x[t, n], size, 0), before, np.repeat(self.reset_mask[t, n], size))
            d_after = tuple(np.tile(part, (len(chunk), 1)) for part in identity)
            _, d_before = self.back(cache, np.zeros_like(d_after[0]), d_after, need_input=False)
            jacobian = np.concatenate(d_before, axis=1).reshape(len(chunk), size, size)
            finite = np.isfinite(jacobian).all((1, 2))
            norms[t[finite], n[finite]] = np.linalg.norm(jacobian[finite], 2, axis=(1, 2))
        return norms


def _direction(layer, number, direction, input_size):
    """One direction of one layer of a stack, as a float64 layer that walks forward."""
    suffix, options = layer_suffix(number, direction), files.configuration(layer)
    del options["class"], options["version"]
    if layer.activations:
        used = len(layer.activations) // (1 + (len(layer.activations) > len(PLAIN[layer._kind])))
        options["activations"] = layer.activations[-used:] if direction else layer.activations[:used]
    options |= {"input_size": input_size, "num_layers": 1, "batch_first": False, "dropout": 0.0,
                "bidirectional": False, "reverse": False, "dtype": np.float64}
    return type(layer).from_parameters({name + "_l0": layer.parameters[name + suffix] for name in NAMES
                                        if name + suffix in layer.parameters}, **options)


# ---- The layers of a model ------------------------------------------------------------------------

class _Chain:
    """A model's modules one after another in float64, all arrays as [T, N, ...]: forward when made, back by ``flows``.
    """

    def __init__(self, model, x, state, lengths, reset_mask):
        if not isinstance(model, (Recurrent, Sequential)):
            raise TypeError(f"model: expected an RNN, LSTM, GRU or Sequential, got {type(model).__name__}")
        output, _ = model(x, state, lengths=lengths, reset_mask=reset_mask)     # for all its checks
        self.batch_first, self.dtype = model.batch_first, model.dtype
        self.unbatched, self.shape = output.ndim == 2, output.shape
        x = self._internal(np.asarray(x))
        T, N = x.shape[:2]
        if not T * N:
            raise ValueError(f"x: expected at least one step of one row, got shape {self.shape}")
        lengths = np.broadcast_to(T if lengths is None else lengths, N)
        self.valid = np.arange(T)[:, None] < lengths
        reset_mask = np.zeros((T, N), bool) if reset_mask is None else np.asarray(reset_mask).reshape(T, N)
        self.parts = []             # of each module: its name, the way back
        for prefix, module, start in _leaves(model, state):
            if isinstance(module, Recurrent):
                way, x = _stack(module, x, module._states(start, N, self.unbatched), lengths, reset_mask)
            else:
                module = _double(module)
                x, _, cache = module.forward(x)
                way = module, cache
            self.parts.append((prefix, way))
        if not any(isinstance(way, list) for _, way in self.parts):
            raise ValueError(f"model: expected at least one recurrent layer, got {model!r}")
        self.output = np.where(self.valid[..., None], x, 0)

    def _internal(self, a):
        return a[:, None] if self.unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def gradient(self, d_output):
        """What the caller gave for d_output, as float64 [T, N, ...]."""
        if d_output is None:
            last = self.valid & ~np.pad(self.valid[1:], ((0, 1), (0, 0)))
            return np.broadcast_to(last[..., None], self.output.shape).astype(float)
        if callable(d_output):
            output = self.output[:, 0] if self.unbatched else self._internal(self.output)
            d_output = d_output(output.astype(self.dtype))
        d_output = check.array(d_output, "d_output", np.dtype(np.float64))
        d_output = self._internal(check.shaped(d_output, "d_output", self.shape)).astype(float)
        return np.where(self.valid[..., None], d_output, 0)

    def flows(self, d, jacobian_rows):
        """Name -> LayerFlow from the gradient of the output."""
        found = {}
        for prefix, way in reversed(self.parts):
            if isinstance(way, list):
                here, d = _stack_flows(way, d, jacobian_rows)
                found = {prefix + name: flow for name, flow in here.items()} | found
            else:
                module, cache = way
                d = module.backward(cache, d).input
        return found


def _leaves(model, state, prefix=""):
    """(prefix of names, module, state) of every module that has none within."""
    if not isinstance(model, Sequential):
        yield prefix, model, state
        return
    for number, (module, h) in enumerate(zip(model, [None] * len(model) if state is None else state, strict=True)):
        yield from _leaves(module, h, f"{prefix}{number}.")


def _double(module):
    """A Linear or Embedding in float64."""
    if isinstance(module, Linear):
        twin = Linear(module.in_features, module.out_features, module.bias, dtype=np.float64, rng=UNDRAWN)
    else:
        twin = Embedding(module.num_embeddings, module.embedding_dim, dtype=np.float64, rng=UNDRAWN)
    twin.load_state_dict(module.parameters)
    return twin


def _stack(layer, x, state, lengths, reset_mask):
    """The walks of a recurrent layer, [number][direction], and its output."""
    directions, walks = 1 + layer.bidirectional, []
    for number in range(layer.num_layers):
        walks.append([])
        for direction in range(directions):
            start = [part[number * directions + direction].astype(float) for part in state if part is not None]
            walks[-1].append(_Walk(layer, number, direction, x, start, lengths, reset_mask))
        x = np.concatenate([walk.output for walk in walks[-1]], axis=-1)
    return walks, x


def _stack_flows(walks, d_output, jacobian_rows):
    """Name -> LayerFlow of a recurrent layer's walks, and dL/dx."""
    found = {}
    for number in reversed(range(len(walks))):
        shares, d_output, here = np.split(d_output, len(walks[number]), axis=-1), 0, {}
        for direction, (walk, share) in enumerate(zip(walks[number], shares, strict=True)):
            here[layer_suffix(number, direction)[1:]], dx = walk.flow(share, jacobian_rows)
            d_output = d_output + dx
        found = here | found
    return found, d_output


# ---- Drawing and printing ----------------------------------------------------------------------------

def over_rows(norms):
    """Root of the mean square over rows [T]; NaN where no row has that step."""
    known = ~np.isnan(norms)
    largest = np.max(norms, axis=1, initial=0, where=known)         # squares of 1e-200 would be zero
    scaled = np.divide(norms, largest[:, None], out=np.zeros_like(norms), where=known & (largest[:, None] > 0))
    with np.errstate(invalid="ignore"):
        return largest * np.sqrt(np.square(scaled).sum(1) / known.sum(1))


def _drawn(norms):
    """`over_rows`, without zeros: a logarithmic axis has no place for them."""
    joined = over_rows(norms)
    return np.where(joined > 0, joined, np.nan)
