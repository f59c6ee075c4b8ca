"""Training of a forecaster's networks: windows of the series, the loss over known targets, the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses, optim, training
from ..nn import GRU, LSTM, RNN, Linear
from .network import ForecastNetwork
from .options import LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._base.typing import Array, BoolArray
    from .encoding import Encoding
    from .options import Options
    from .series import Series

LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
WARM_UP = 4             # the first quarter of a window that begins within a series does not count in the loss


class KnownTargets:
    """A loss over the targets [T, N, horizon] that are not NaN; the output is [T, N, horizon * Q].

    Parameters
    ----------
    loss : function of fastrnn.losses
        What is averaged.
    quantiles : tuple of float
        Q quantiles, or none: the output then has one value for each step of the horizon.
    """

    def __init__(self, loss: Callable[..., Any], quantiles: tuple[float, ...]) -> None:
        self.loss, self.quantiles = loss, quantiles

    def __call__(self, output: Array, target: Array, mask: Array | None = None) -> tuple[float, Array]:
        counts = ~np.isnan(target)
        if mask is not None:
            counts &= mask[..., None].astype(bool)
        split = output.reshape(*target.shape, len(self.quantiles)) if self.quantiles else output
        value, slope = self.loss(split, target, counts)
        return value, slope.reshape(output.shape)


@dataclass
class Windows:
    """Pieces of series that are trained on: inputs [T, I], targets [T, horizon], and which steps count [T]."""

    x: list[Array]
    y: list[Array]
    mask: list[BoolArray]

    def __len__(self) -> int:
        return len(self.x)

    def add(self, x: Array, y: Array, mask: BoolArray) -> None:
        self.x.append(x)
        self.y.append(y)
        self.mask.append(mask)

    def some(self, indices: Array) -> Windows:
        return Windows(*([part[i] for i in indices] for part in (self.x, self.y, self.mask)))


def train(series: list[Series], encoding: Encoding,
          options: Options) -> tuple[list[ForecastNetwork], list[training.History]]:
    """The networks of an ensemble, trained on all steps of all series, and the history of each training."""
    windows, validation = _windows(series, encoding, options)
    if not windows:
        raise ValueError(f"y: nothing to learn from: expected series of more samples than window={encoding.window} and "
                         f"horizon={encoding.horizon} need, whose values vary; the longest has "
                         f"{max(map(len, series))} samples")
    rng, batch_size, updates = options.generator, min(options.batch_size, len(windows)), options.updates
    if len(windows) > updates * batch_size:
        windows = windows.some(np.sort(rng.choice(len(windows), updates * batch_size, replace=False)))
    batches = -(-len(windows) // batch_size)
    epochs = max(1, round(updates / batches))
    updates = epochs * batches
    quantiles = options.quantiles
    loss = KnownTargets(losses.Quantile(quantiles) if quantiles else LOSSES[options.loss](), quantiles)
    networks, histories = [], []
    for _ in range(options.ensemble):
        network = _fresh_network(encoding, options)
        schedule = optim.warmup(max(1, updates // 20), optim.cosine(updates - updates // 20))
        optimizer = optim.AdamW(network, options.learning_rate, weight_decay=options.weight_decay, schedule=schedule)
        histories.append(training.fit(
            network, windows.x, windows.y, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size,
            mask=windows.mask, clip_norm=1.0, validation=validation, patience=options.patience, rng=rng,
            progress=options.progress))
        networks.append(network)
    return networks, histories


def _fresh_network(encoding: Encoding, options: Options) -> ForecastNetwork:
    """A network whose forecasts begin near the reference: its linear map is a tenth of the usual size."""
    rng = options.generator
    layer = LAYERS[options.cell](encoding.size, options.hidden_size, options.num_layers, dropout=options.dropout,
                                 rng=rng)
    head = Linear(layer.hidden_size + layer.input_size, encoding.horizon * max(1, len(options.quantiles)), rng=rng)
    with head.updating() as parameters:
        parameters["weight"] *= 0.1
        parameters["bias"] *= 0.1
    return ForecastNetwork(layer, head)


def _windows(series: list[Series], encoding: Encoding,
             options: Options) -> tuple[Windows, dict[str, list[Array]] | None]:
    """The windows to train on; and, where there is early stopping, the ends of the series to validate on."""
    length, H = options.sequence, encoding.horizon
    held = H if options.patience else 0             # last steps of every series, which are not trained on
    windows, ends = Windows([], [], []), Windows([], [], [])
    counts = np.arange(length) >= length // WARM_UP
    for each in series:
        end = len(each) - held
        encoded = encoding.encode(each)
        target = encoding.targets(encoded, each, min(encoding.window, len(each) // 2) - 1)
        if held and end > 0:
            part = slice(max(0, end - length), end)
            ends.add(encoded.x[part], target[part].copy(), np.empty(0, bool))
            target[np.arange(len(each))[:, None] + np.arange(1, H + 1) >= end] = np.nan
        for start in _starts(end, length):
            part = slice(start, min(start + length, end))
            y = target[part]
            if not np.isnan(y).all():
                windows.add(encoded.x[part], y, counts if start else np.ones(len(y), bool))
    if not held:
        return windows, None
    last = [np.arange(len(x)) == len(x) - 1 for x in ends.x]        # the one step whose forecasts are judged
    return windows, {"x": ends.x, "y": ends.y, "mask": last}


def _starts(T: int, length: int) -> list[int]:
    """First steps of the windows of a series of T steps: every quarter of a window, and the last window."""
    return sorted({*range(0, max(1, T - length + 1), max(1, length // WARM_UP)), max(0, T - length)})
