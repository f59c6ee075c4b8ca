"""Training of a forecaster's networks: windows of the series, the loss over known targets, the optimizer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import losses, optim
from ..nn import GRU, LSTM, RNN, Linear
from ..training.run import fit_data
from .network import ForecastNetwork
from .options import LOSSES
from .windows import Prepared, WindowData, Windows, judged_windows, training_windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import training
    from .._base.typing import Array
    from ..nn.base import Module
    from .encoding import Encoding
    from .options import Options
    from .series import Series

LAYERS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
CHECKS = 12             # times that a judged training looks at its origins
FURTHER = 4             # training goes on with all steps for a fourth of the updates, at a fourth of the rate


class Trainer(Protocol):
    """Who trains the networks: this module, on the series in memory, or one that has further series elsewhere."""

    def train(self, series: list[Series], encoding: Encoding,
              options: Options) -> tuple[list[ForecastNetwork], list[training.History]]: ...

    def judged(self, series: list[Series], encoding: Encoding, options: Options, ends: list[int],
               origins: list[list[int]]) -> tuple[ForecastNetwork, training.History, int] | None: ...

    def finished(self, network: ForecastNetwork, series: list[Series], encoding: Encoding, options: Options,
                 updates: int) -> tuple[list[ForecastNetwork], list[training.History]]: ...


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
    windows = drawn(windows, options, options.updates)
    networks, histories = [], []
    for _ in range(options.ensemble):
        network = fresh_network(encoding, options)
        histories.append(optimise(network, windows, options, options.updates, validation))
        networks.append(network)
    return networks, histories


def judged(series: list[Series], encoding: Encoding, options: Options, ends: list[int],
           origins: list[list[int]]) -> tuple[ForecastNetwork, training.History, int] | None:
    """One network trained on the steps before `ends` of each series, with the weights that were best at the origins.

    Parameters
    ----------
    series : list of Series
        Those trained on.
    encoding : Encoding
        What the network reads.
    options : Options
        With numbers for all that may be "auto".
    ends : list of int
        Of each series, how many first steps are trained on.
    origins : list of list of int
        Of each series, the origins: each forecasts from so many first steps.

    Returns
    -------
    tuple or None
        The network, its history, and after how many updates it was best; None where there is nothing to learn.
    """
    prepared = Prepared(series, encoding)
    windows = training_windows(prepared, options.sequence, ends)
    if not windows:
        return None
    validation = judged_windows(prepared, options.sequence, ends, origins)
    windows = drawn(windows, options, options.updates)
    batches = -(-len(windows) // min(options.batch_size, len(windows)))
    repeated = max(1, options.updates // CHECKS // batches)     # so that the origins are looked at CHECKS times
    windows = windows.some(np.tile(np.arange(len(windows)), repeated))
    network = fresh_network(encoding, options)
    history = optimise(network, windows, options, options.updates, WindowData(validation) if validation else None)
    batches = -(-len(windows) // min(options.batch_size, len(windows)))
    best = history.epochs if history.best_epoch is None else history.best_epoch + 1
    return network, history, best * batches


def finished(network: ForecastNetwork, series: list[Series], encoding: Encoding, options: Options,
             updates: int) -> tuple[list[ForecastNetwork], list[training.History]]:
    """The ensemble: the judged network trained on with all steps, at a lower rate, and fresh ones beside it."""
    windows = training_windows(Prepared(series, encoding), options.sequence, [len(each) for each in series])
    further = max(1, updates // FURTHER)
    gentle = replace(options, learning_rate=options.learning_rate / FURTHER)
    networks, histories = [network], [optimise(network, drawn(windows, options, further), gentle, further, None)]
    for _ in range(options.ensemble - 1):
        networks.append(fresh_network(encoding, options))
        histories.append(optimise(networks[-1], drawn(windows, options, updates), options, updates, None))
    return networks, histories


def drawn(windows: Windows, options: Options, updates: int) -> Windows:
    """The windows, or as many of them, drawn, as the updates can read."""
    batch_size = min(options.batch_size, len(windows))
    if len(windows) > updates * batch_size:
        rng = options.generator
        return windows.some(np.sort(rng.choice(len(windows), updates * batch_size, replace=False)))
    return windows


def loss_and_optimizer(network: Module, options: Options, updates: int) -> tuple[KnownTargets, optim.AdamW]:
    """What so many updates minimise, and by what steps."""
    quantiles = options.quantiles
    loss = KnownTargets(losses.Quantile(quantiles) if quantiles else LOSSES[options.loss](), quantiles)
    schedule = optim.warmup(max(1, updates // 20), optim.cosine(updates - updates // 20))
    return loss, optim.AdamW(network, options.learning_rate, weight_decay=options.weight_decay, schedule=schedule)


def optimise(network: Module, windows: Windows, options: Options, updates: int,
             validation: WindowData | None) -> training.History:
    """Train a network for the nearest whole number of passes over the windows."""
    batch_size = min(options.batch_size, len(windows))
    batches = -(-len(windows) // batch_size)
    epochs = max(1, round(updates / batches))
    loss, optimizer = loss_and_optimizer(network, options, epochs * batches)
    return fit_data(
        network, WindowData(windows), validation, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size,
        clip_norm=1.0, patience=options.patience if validation else None, rng=options.generator,
        progress=options.progress)


def fresh_network(encoding: Encoding, options: Options, size: int | None = None) -> ForecastNetwork:
    """A network whose forecasts begin near the reference: its linear map is a tenth of the usual size.

    `size` is how many values it reads, those of the encoding if it is not given.
    """
    rng = options.generator
    layer = LAYERS[options.cell](size or encoding.size, options.hidden_size, options.num_layers,
                                 dropout=options.dropout, rng=rng)
    head = Linear(layer.hidden_size + layer.input_size, encoding.horizon * max(1, len(options.quantiles)), rng=rng)
    with head.updating() as parameters:
        parameters["weight"] *= 0.1
        parameters["bias"] *= 0.1
    return ForecastNetwork(layer, head)
