"""How far back a loss reaches: the norms of dL/dh_t over time, and of the steps' Jacobians.

``gradient_flow`` walks every layer step by step, forward and back, in float64 whatever the model's dtype: a gradient
that has shrunk to 1e-100 still differs from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ._base import validation as check
from ._base.figures import new_figure
from ._base.typing import Array, ArrayLike, BoolArray, Float64Array, IntArray
from .nn import files
from .nn.modules import Embedding, Linear, Sequential
from .nn.parameters import NAMES, PLAIN, UNDRAWN, layer_suffix
from .nn.recurrent import Recurrent

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["GradientFlow", "LayerFlow", "gradient_flow"]

_ROWS_PER_CALL = 2 ** 14        # rows of one kernel call that computes Jacobians; bounds the memory
# Sum of size ** 3 of the Jacobians of one call: some milliseconds' work, after which Ctrl-C is answered.
_NORMS_PER_CALL = 2 ** 24


@dataclass(frozen=True)
class LayerFlow:
    """The gradient along one direction of one layer.

    Below, T is the number of steps and N that of rows. Values past a row's length are NaN.

    Attributes
    ----------
    hidden : array [T, N]
        Norm of dL/dh_t, where h_t is the hidden state after step t.
    cell : array [T, N] or None
        Norm of dL/dc_t at constant h_t, of an LSTM only: the part that reaches the cell state c_t through later steps.
    jacobian : array [T, R]
        Spectral norm of ds_t/ds_{t-1} in the first R rows, where s is h, or (h, c) for an LSTM. In a reversed
        direction, which walks from the end, it is that of ds_t/ds_{t+1}.
    reversed : bool
        Whether this direction walks from the end.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> layer = fastrnn.RNN(1, 4, rng=0)
    >>> flow = fastrnn.diagnostics.gradient_flow(layer, np.zeros((10, 1), np.float32))
    >>> flow["l0"].hidden.shape, flow["l0"].cell, flow["l0"].jacobian.shape
    ((10, 1), None, (10, 1))
    """

    hidden: Float64Array
    cell: Float64Array | None
    jacobian: Float64Array
    reversed: bool = False

    @property
    def rate(self) -> float:
        """The factor by which the norm of dL/dh_t changes with each step further from the loss.

        It is the geometric mean over steps and rows, from the last step to the first. Below 1 the gradient vanishes,
        above 1 it explodes. NaN where there is a single step.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> layer = fastrnn.RNN(1, 1, activations=[("affine", 1.0, 0.0)], bias=False)       # h_t = x_t + 0.5 h_{t-1}
        >>> layer.load_state_dict({"weight_ih_l0": np.float32([[1]]), "weight_hh_l0": np.float32([[0.5]])})
        >>> flow = fastrnn.diagnostics.gradient_flow(layer, np.zeros((10, 1), np.float32))
        >>> round(flow["l0"].rate, 6)
        0.5
        """
        hidden = self.hidden[::-1] if self.reversed else self.hidden
        log_factors = []
        for row in hidden.T:
            norms = row[~np.isnan(row)]
            if len(norms) > 1 and norms[-1] > 0:
                with np.errstate(divide="ignore"):
                    log_factors.append((np.log(norms[0]) - np.log(norms[-1])) / (len(norms) - 1))
        return float(np.exp(np.mean(log_factors))) if log_factors else float("nan")


@dataclass(frozen=True)
class GradientFlow:
    """What ``gradient_flow`` returns: one ``LayerFlow`` by name, in the order of the layers.

    The names are "l0", "l1", "l0_reverse", ..., as at the ends of the parameters' names; in a Sequential the number of
    the module stands before: "0.l0". ``flow[name]`` is a layer's flow, ``for name in flow`` gives the names, ``print``
    shows a table and ``plot`` draws it.

    Attributes
    ----------
    layers : dict of str to LayerFlow
        The flow of every layer and direction.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> x = np.random.default_rng(0).standard_normal((50, 2, 3))
    >>> layer = fastrnn.LSTM(3, 8, num_layers=2, dtype=np.float64, rng=0)
    >>> flow = fastrnn.diagnostics.gradient_flow(layer, x)
    >>> list(flow)
    ['l0', 'l1']
    >>> norms = flow["l1"].hidden
    >>> bool((norms[0] < 1e-6 * norms[-1]).all())           # the gradient has vanished
    True
    """

    layers: dict[str, LayerFlow]

    def __getitem__(self, name: str) -> LayerFlow:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __str__(self) -> str:
        width = max(5, *map(len, self.layers))
        lines = [f"{'layer':{width}}  steps  |dL/dh| at the first  and the last step  factor a step  |Jacobian|, "
                 "median"]
        for name, flow in self.layers.items():
            hidden = rms_over_rows(flow.hidden)
            jacobian = flow.jacobian[~np.isnan(flow.jacobian)]
            lines.append(f"{name:{width}}  {len(hidden):5}  {hidden[0]:21.3g}  {hidden[-1]:17.3g}  {flow.rate:13.3f}  "
                         f"{np.median(jacobian) if jacobian.size else np.nan:18.3f}")
        return "\n".join(lines)

    def plot(self, ax: Sequence[Axes] | npt.NDArray[np.object_] | None = None) -> tuple[Axes, Axes]:
        """Draw the gradients' norms in one panel, and the Jacobians' norms in another, over the steps.

        Each layer has a solid line for dL/dh_t and, if it is an LSTM, a dashed one for dL/dc_t. Rows of the batch are
        joined by the root of their mean square. The gradients' axis is logarithmic: what is exactly 0 is not drawn.

        Parameters
        ----------
        ax : pair of matplotlib.axes.Axes, or array of two, optional
            Two panels: for the gradients and for the Jacobians. Those of a new figure if not given.

        Returns
        -------
        pair of matplotlib.axes.Axes
            The two panels. ``flow.plot()[0].figure.savefig(path)`` writes the figure.

        Raises
        ------
        ImportError
            The package matplotlib is missing: ``pip install fastrnn[plot]``.
        ValueError
            The argument ax is not two panels.

        Examples
        --------
        >>> import numpy as np
        >>> import fastrnn
        >>> flow = fastrnn.diagnostics.gradient_flow(fastrnn.GRU(1, 4, rng=0), np.zeros((10, 1), np.float32))
        >>> gradients, jacobians = flow.plot()
        >>> gradients.get_yscale()
        'log'
        """
        gradients, jacobians = self._panels(ax)
        for number, (name, flow) in enumerate(self.layers.items()):
            color = f"C{number % 10}"
            gradients.plot(_positive(flow.hidden), color=color, label=f"{name}: dL/dh")
            if flow.cell is not None:
                gradients.plot(_positive(flow.cell), color=color, linestyle="--", linewidth=1, label=f"{name}: dL/dc")
            if flow.jacobian.size:
                jacobians.plot(_positive(flow.jacobian), color=color, linewidth=1, label=name)
        gradients.set(yscale="log", ylabel="norm of the gradient")
        gradients.legend(fontsize=8, frameon=False, ncols=1 + (len(self.layers) > 4))
        jacobians.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
        low, high = jacobians.get_ylim()
        jacobians.set(xlabel="step t", ylabel="spectral norm of a step's Jacobian",
                      ylim=(min(low, 0.9), max(high, 1.1)))
        for panel in (gradients, jacobians):
            panel.grid(alpha=0.25)
        return gradients, jacobians

    @staticmethod
    def _panels(ax: Sequence[Axes] | npt.NDArray[np.object_] | None) -> list[Axes]:
        """The panels that the user gave, or those of a new figure."""
        if ax is None:
            return list(new_figure("GradientFlow.plot", 8, 6).subplots(2, 1, sharex=True))
        panels = np.asarray(ax, object).ravel()
        if len(panels) != 2:
            raise ValueError("ax: expected two panels, for the gradients and for the Jacobians, got "
                             f"{'one' if len(panels) == 1 else len(panels)}")
        return list(panels)


def gradient_flow(model: Recurrent[Any, Any] | Sequential, x: ArrayLike,
                  d_output: ArrayLike | Callable[[Array], ArrayLike] | None = None, *,
                  state: ArrayLike | Sequence[Any] | None = None, lengths: ArrayLike | None = None,
                  reset_mask: ArrayLike | None = None, jacobian_rows: int = 1) -> GradientFlow:
    """Compute the norms of dL/dh_t and of ds_t/ds_{t-1} at every step t, layer by layer.

    By the chain rule a loss L reaches the state after step t through every later one::

        dL/dh_t = dL/dy_t + (ds_{t+1}/ds_t)^T dL/ds_{t+1}

    where y_t is the layer's output at step t, and s_t its state: h_t, or (h_t, c_t) for an LSTM. So L reaches step t
    from step T through the product of T - t Jacobians. Where their spectral norms stay below 1, its share vanishes at
    least as fast as their product [1]_; for the plain RNN, whose Jacobian is diag(1 - h_t^2) W_hh, see [2]_. For the
    gradient to explode, norms above 1 are necessary, but not sufficient.

    Parameters
    ----------
    model : RNN, LSTM, GRU or Sequential
        The model. Dropout does not act here.
    x : array_like
        As for ``model.forward``: [T, N, I], [N, T, I] with batch_first, or [T, I].
    d_output : array_like, or function of the output, optional
        The gradient dL/doutput, of the output's shape, or a function that makes it from the output:
        ``lambda y: fastrnn.losses.MSE()(y, target)[1]``. If not given, L is the sum of each row's output at its last
        valid step.
    state : array_like, pair of array_like or sequence of states, optional
        The initial state, as for ``model.forward``; zeros if not given.
    lengths : array_like of int, optional
        The number of valid steps in each row, as for ``model.forward``; all if not given.
    reset_mask : array_like of bool, optional
        Where the state is zeroed before a step, as for ``model.forward``; nowhere if not given.
    jacobian_rows : int
        The number of rows, from the first, whose Jacobians are computed; 0 for none. Each takes, at every step, a
        singular value decomposition, whose cost grows with the cube of the hidden size.

    Returns
    -------
    GradientFlow
        The norms by layer.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable, which the message names; or x has no step or no row.

    Notes
    -----
    Everything is computed in float64 from the model's parameters. The Jacobians come from the kernels' own backward
    pass, one row of them a product, so options such as peepholes, clip or other activations are in them.

    References
    ----------
    .. [1] Bengio, Simard & Frasconi (1994), Learning long-term dependencies with gradient descent is difficult. IEEE
       Transactions on Neural Networks 5(2).
    .. [2] Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks. ICML.

    Examples
    --------
    A plain RNN beside an LSTM whose forget gates start open:

    >>> import numpy as np
    >>> import fastrnn
    >>> x = np.random.default_rng(0).standard_normal((100, 4, 2), np.float32)
    >>> lstm = fastrnn.LSTM(2, 16, rng=0)
    >>> with lstm.updating() as p:
    ...     p["bias_ih_l0"][16:32] += 5
    >>> for layer in (fastrnn.RNN(2, 16, rng=0), lstm):
    ...     hidden = fastrnn.diagnostics.gradient_flow(layer, x)["l0"].hidden.mean(1)
    ...     print(type(layer).__name__, "vanishes" if hidden[0] < 1e-9 * hidden[-1] else "carries on")
    RNN vanishes
    LSTM carries on
    """
    jacobian_rows = check.size(jacobian_rows, "jacobian_rows", least=0)
    chain = _Chain(model, x, state, lengths, reset_mask)
    return GradientFlow(chain.flows(chain.gradient(d_output), jacobian_rows))


def rms_over_rows(norms: Float64Array) -> Float64Array:
    """The root of the mean square over rows [T]; NaN where no row has that step."""
    known = ~np.isnan(norms)
    largest = np.max(norms, axis=1, initial=0, where=known)         # the square of 1e-200 would be zero
    scaled = np.divide(norms, largest[:, None], out=np.zeros_like(norms), where=known & (largest[:, None] > 0))
    with np.errstate(invalid="ignore"):
        return np.asarray(largest * np.sqrt(np.square(scaled).sum(1) / known.sum(1)))


def _positive(norms: Float64Array) -> Float64Array:
    """`rms_over_rows` with NaN in place of zeros, which a logarithmic axis cannot show."""
    joined = rms_over_rows(norms)
    return np.where(joined > 0, joined, np.nan)


# ---- One direction of one layer ------------------------------------------------------------------

State: TypeAlias = tuple[Float64Array, ...]     # (h,), or (h, c) of an LSTM; [rows, size] each


class _Walk:
    """One direction of a layer, walked step by step from the first to the last; keeps every state and cache.

    All arrays of a reversed direction are turned round on the way in, so that it walks forward too, and its results
    are turned round on the way out.

    Parameters
    ----------
    layer : Recurrent
        The whole layer.
    number, direction : int
        Which layer of the stack, and 1 for the reversed one of two directions.
    x : array [T, N, I]
        Its input.
    state : tuple of arrays [N, size]
        The initial (h,), or (h, c).
    lengths : array [N]
        The rows' valid steps.
    reset_mask : array [T, N]
        Where the state is zeroed before a step.
    """

    def __init__(self, layer: Recurrent[Any, Any], number: int, direction: int, x: Float64Array, state: State,
                 lengths: IntArray, reset_mask: BoolArray) -> None:
        self.cell = _one_direction(layer, number, direction, x.shape[2])
        self.lengths, self.reversed = lengths, direction == 1 or layer.reverse
        self.x, self.reset_mask = self._turn(x), self._turn(reset_mask)
        T, N, _ = x.shape
        self.valid = np.arange(T)[:, None] < lengths
        self.states: list[State] = [state]          # before each step, and after the last
        self.caches: list[Any] = []
        output = np.empty((T, N, self.cell._state_size))
        for t in range(T):
            output[t:t + 1], after, cache = self._step(self.x[t], self.states[t], self.reset_mask[t],
                                                       self.valid[t].astype(int))
            self.states.append(after)
            self.caches.append(cache)
        self.output: Float64Array = self._turn(output)

    def flow(self, d_output: Float64Array, jacobian_rows: int) -> tuple[LayerFlow, Float64Array]:
        """The flow from dL/doutput [T, N, S], and dL/dx."""
        d_output, d_x = self._turn(d_output), np.empty_like(self.x)
        norms = [np.full(d_output.shape[:2], np.nan) for _ in self.states[0]]
        d_state: State = tuple(np.zeros_like(part) for part in self.states[0])
        for t in reversed(range(len(d_x))):
            d_h, *d_c = d_state
            for norm, gradient in zip(norms, (d_h + d_output[t], *d_c), strict=True):
                norm[t] = np.where(self.valid[t], np.linalg.norm(gradient, axis=1), np.nan)
            d_x[t], d_state = self._step_back(self.caches[t], d_output[t], d_state)
        hidden, *cell = map(self._turn, norms)
        jacobian = self._turn(self._jacobians(jacobian_rows)) if jacobian_rows else np.empty((len(d_x), 0))
        return LayerFlow(hidden, cell[0] if cell else None, jacobian, self.reversed), self._turn(d_x)

    def _turn(self, a: Array) -> Array:
        """Each row's valid steps from the last to the first, if this direction is reversed. `a` may have fewer rows."""
        if not self.reversed:
            return a
        t, lengths = np.arange(len(a))[:, None], self.lengths[:a.shape[1]]
        return np.asarray(a[np.where(t < lengths, lengths - 1 - t, t), np.arange(a.shape[1])])

    def _step(self, x: Float64Array, state: State, reset_mask: BoolArray,
              lengths: IntArray | None = None) -> tuple[Float64Array, State, Any]:
        """One step of rows x [rows, I]: the output [1, rows, S], the state after it, the cache."""
        before = state[0][None] if len(state) == 1 else tuple(part[None] for part in state)
        output, after, cache = self.cell.forward(x[None], before, lengths, reset_mask[None])
        return output, tuple(part[0] for part in (after if len(state) == 2 else (after,))), cache

    def _step_back(self, cache: Any, d_output: Float64Array, d_after: State,
                   need_input: bool = True) -> tuple[Any, State]:
        """The gradients of a step's input (None if not needed) and of the state before it."""
        d_state = d_after[0][None] if len(d_after) == 1 else tuple(part[None] for part in d_after)
        gradients = self.cell.backward(cache, d_output[None], d_state, need_input)
        d_before = gradients.state if len(d_after) == 2 else (gradients.state,)
        return None if gradients.input is None else gradients.input[0], tuple(part[0] for part in d_before)

    def _jacobians(self, rows: int) -> Float64Array:
        """Spectral norms of ds_t/ds_{t-1} [T, rows], in walking order.

        Every vector of the identity, as dL/ds_t, goes back through the step: what arrives is a row of the Jacobian. So
        a row of the batch takes part as many times as the state has components.
        """
        rows = min(rows, self.x.shape[1])
        norms = np.full((len(self.x), rows), np.nan)
        sizes = [part.shape[1] for part in self.states[0]]
        size = sum(sizes)
        identity = np.split(np.eye(size), np.cumsum(sizes)[:-1], axis=1)
        points = np.argwhere(self.valid[:, :rows])
        points_per_call = max(1, min(_ROWS_PER_CALL // size, _NORMS_PER_CALL // size ** 3))
        for chunk in np.split(points, range(points_per_call, len(points), points_per_call)):
            t, n = chunk.T
            before = tuple(np.repeat(np.stack([self.states[i][part][j] for i, j in chunk]), size, 0)
                           for part in range(len(sizes)))
            _, _, cache = self._step(np.repeat(self.x[t, n], size, 0), before, np.repeat(self.reset_mask[t, n], size))
            d_after = tuple(np.tile(part, (len(chunk), 1)) for part in identity)
            _, d_before = self._step_back(cache, np.zeros_like(d_after[0]), d_after, need_input=False)
            jacobian = np.concatenate(d_before, axis=1).reshape(len(chunk), size, size)
            finite = np.isfinite(jacobian).all((1, 2))
            norms[t[finite], n[finite]] = np.linalg.norm(jacobian[finite], 2, axis=(1, 2))
        return norms


def _one_direction(layer: Recurrent[Any, Any], number: int, direction: int, input_size: int) -> Recurrent[Any, Any]:
    """One direction of one layer of a stack, as a float64 layer that walks forward."""
    suffix, options = layer_suffix(number, direction), files.configuration(layer)
    del options["class"], options["version"]
    if layer.activations:
        count = len(layer.activations) // (1 + (len(layer.activations) > len(PLAIN[layer._kind])))
        options["activations"] = layer.activations[-count:] if direction else layer.activations[:count]
    options |= {"input_size": input_size, "num_layers": 1, "batch_first": False, "dropout": 0.0,
                "bidirectional": False, "reverse": False, "dtype": np.float64}
    kind: Any = type(layer)
    one: Recurrent[Any, Any] = kind.from_parameters(
        {name + "_l0": layer.parameters[name + suffix] for name in NAMES if name + suffix in layer.parameters},
        **options)
    return one


# ---- The layers of a model ------------------------------------------------------------------------

@dataclass(frozen=True)
class _RecurrentPart:
    """A recurrent layer of a model: the prefix of its names, and its walks [number][direction]."""

    prefix: str
    walks: list[list[_Walk]]

    def flows(self, d_output: Float64Array, jacobian_rows: int) -> tuple[dict[str, LayerFlow], Float64Array]:
        """The flow of every layer and direction by name, and dL/dx."""
        flows: dict[str, LayerFlow] = {}
        for number in reversed(range(len(self.walks))):
            of_layer, d_x = {}, np.zeros(())
            shares = np.split(d_output, len(self.walks[number]), axis=-1)       # of the directions
            for direction, (walk, share) in enumerate(zip(self.walks[number], shares, strict=True)):
                name = self.prefix + layer_suffix(number, direction)[1:]
                of_layer[name], d_direction = walk.flow(share, jacobian_rows)
                d_x = d_x + d_direction
            flows, d_output = of_layer | flows, d_x
        return flows, d_output


@dataclass(frozen=True)
class _OtherPart:
    """A Linear or Embedding of a model in float64, and the cache of its forward pass."""

    module: Linear | Embedding
    cache: Any

    def flows(self, d_output: Float64Array, jacobian_rows: int) -> tuple[dict[str, LayerFlow], Any]:
        """No flow, and dL/dx (None of an Embedding)."""
        return {}, self.module.backward(self.cache, d_output).input


class _Chain:
    """The modules of a model one after another in float64: forward when it is made, backward by ``flows``.

    All arrays are [T, N, ...], whatever the model's order of axes.
    """

    def __init__(self, model: Recurrent[Any, Any] | Sequential, x: ArrayLike, state: Any, lengths: ArrayLike | None,
                 reset_mask: ArrayLike | None) -> None:
        if not isinstance(model, (Recurrent, Sequential)):
            raise TypeError(f"model: expected an RNN, LSTM, GRU or Sequential, got {type(model).__name__}")
        model._needs_gradients()
        output, _ = model(x, state, lengths=lengths, reset_mask=reset_mask)     # checks all arguments
        self.batch_first, self.dtype = model.batch_first, model.dtype
        self.unbatched, self.shape = output.ndim == 2, output.shape
        signal = self._time_first(np.asarray(x))
        T, N = signal.shape[:2]
        if not T * N:
            raise ValueError(f"x: expected at least one step of one row, got shape {self.shape}")
        row_lengths = np.broadcast_to(T if lengths is None else np.asarray(lengths), N)
        self.valid = np.arange(T)[:, None] < row_lengths
        reset = np.zeros((T, N), bool) if reset_mask is None else np.asarray(reset_mask).reshape(T, N)
        self.parts: list[_RecurrentPart | _OtherPart] = []
        for prefix, module, start in _leaves(model, state):
            if isinstance(module, Recurrent):
                initial = module._states(start, N, self.unbatched)
                walks, signal = _walk_stack(module, signal, initial, row_lengths, reset)
                self.parts.append(_RecurrentPart(prefix, walks))
            else:
                double = _double(module)
                signal, _, cache = double.forward(signal)
                self.parts.append(_OtherPart(double, cache))
        if not any(isinstance(part, _RecurrentPart) for part in self.parts):
            raise ValueError(f"model: expected at least one recurrent layer, got {model!r}")
        self.output = np.where(self.valid[..., None], signal, 0)

    def _time_first(self, a: Array) -> Array:
        return a[:, None] if self.unbatched else a.swapaxes(0, 1) if self.batch_first else a

    def gradient(self, d_output: ArrayLike | Callable[[Array], ArrayLike] | None) -> Float64Array:
        """What the user gave for d_output, as float64 [T, N, ...]; 0 past the rows' lengths."""
        if d_output is None:
            last = self.valid & ~np.pad(self.valid[1:], ((0, 1), (0, 0)))
            return np.broadcast_to(last[..., None], self.output.shape).astype(float)
        if callable(d_output):
            output = self.output[:, 0] if self.unbatched else self._time_first(self.output)
            d_output = d_output(output.astype(self.dtype))
        array = check.array(d_output, "d_output", np.dtype(np.float64))
        array = self._time_first(check.shaped(array, "d_output", self.shape)).astype(float)
        return np.where(self.valid[..., None], array, 0)

    def flows(self, d_output: Float64Array, jacobian_rows: int) -> dict[str, LayerFlow]:
        """Name -> LayerFlow, from the gradient of the model's output."""
        flows: dict[str, LayerFlow] = {}
        for part in reversed(self.parts):
            of_part, d_output = part.flows(d_output, jacobian_rows)
            flows = of_part | flows
        return flows


def _leaves(model: Any, state: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Of every module that contains no others: the prefix of its names, the module, its initial state."""
    if not isinstance(model, Sequential):
        yield prefix, model, state
        return
    states = [None] * len(model) if state is None else state
    for number, (module, initial) in enumerate(zip(model, states, strict=True)):
        yield from _leaves(module, initial, f"{prefix}{number}.")


def _double(module: Linear | Embedding) -> Linear | Embedding:
    """A Linear or Embedding in float64."""
    double: Linear | Embedding
    if isinstance(module, Linear):
        double = Linear(module.in_features, module.out_features, module.bias, dtype=np.float64, rng=UNDRAWN)
    else:
        double = Embedding(module.num_embeddings, module.embedding_dim, dtype=np.float64, rng=UNDRAWN)
    double.load_state_dict(module.parameters)
    return double


def _walk_stack(layer: Recurrent[Any, Any], x: Array, states: Sequence[Array | None], lengths: IntArray,
                reset_mask: BoolArray) -> tuple[list[list[_Walk]], Float64Array]:
    """The walks of a recurrent layer, [number][direction], and its output."""
    directions = 1 + layer.bidirectional
    walks: list[list[_Walk]] = []
    for number in range(layer.num_layers):
        walks.append([])
        for direction in range(directions):
            index = number * directions + direction
            state = tuple(part[index].astype(float) for part in states if part is not None)
            walks[-1].append(_Walk(layer, number, direction, x, state, lengths, reset_mask))
        x = np.concatenate([walk.output for walk in walks[-1]], axis=-1)
    return walks, x
