"""Training of a forecaster's networks: windows of the series, the loss over known targets, the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses, optim
from ..nn import GRU, LSTM, RNN, Linear
from ..training.run import fit_data
from .network import ForecastNetwork
from .options import LOSSES
from .windows import Prepared, WindowData, judged_windows, training_windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import training
    from .._base.typing import Array
    from .encoding import Encoding
    from .options import Options
    from .series import Series

LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


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


def train(series: list[Series], encoding: Encoding,
          options: Options) -> tuple[list[ForecastNetwork], list[training.History]]:
    """The networks of an ensemble, trained on all steps of all series, and the history of each training."""
    held = encoding.horizon if options.patience else 0      # last steps of every series, which are not trained on
    ends, prepared = [len(each) - held for each in series], Prepared(series, encoding)
    windows = training_windows(prepared, options.sequence, ends)
    validation = None
    if held:
        validation = WindowData(judged_windows(prepared, options.sequence, ends, [[end] for end in ends]))
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
        histories.append(fit_data(
            network, WindowData(windows), validation, loss=loss, optimizer=optimizer, epochs=epochs,
            batch_size=batch_size, clip_norm=1.0, patience=options.patience, rng=rng, progress=options.progress))
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
