"""fit, evaluate, History and the bar: against torch's loop and loops by hand, and what they promise."""

import copy
import math
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from helpers import assert_same_bits, refuses

import fastrnn
from fastrnn import GRU, LSTM, Embedding, Linear, Sequential, losses, optim
from fastrnn._base.progress import tracked
from fastrnn.training import History, evaluate, fit
from fastrnn.training.data import BUCKET, Data

F64 = {"dtype": np.float64}


def net(seed=0, dtype=np.float32, batch_first=False, dropout=0.0):
    return Sequential(LSTM(2, 6, 2, rng=seed, dtype=dtype, batch_first=batch_first, dropout=dropout),
                      Linear(6, 3, rng=seed + 1, dtype=dtype))


def arrays(T=12, N=10, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((T, N, 2)).astype(dtype), rng.standard_normal((T, N, 3)).astype(dtype)


def rows_of(lengths, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.standard_normal((n, size)).astype(dtype) for n in lengths] for size in (2, 3)]


def trained(model, x, y, *, loss=None, optimizer=None, **options):
    """The model after fit, and the history; MSE and plain SGD at 0.1, 2 epochs unless the options say otherwise."""
    options = {"epochs": 2, "batch_size": 4, "rng": 0, "progress": False} | options
    history = fit(model, x, y, loss=loss or losses.MSE(), optimizer=optimizer or optim.SGD(model, 0.1), **options)
    return model, history


def numbers(history):
    """Everything in a history that does not depend on the clock."""
    return {name: np.array(values) for name, values in history.items() if name != "seconds"}


# ---- The loop -----------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("clip_norm", [math.inf, 0.1])
def test_it_is_torchs_loop(batch_first, clip_norm):
    """Twelve updates in float64: the loss and norm of every epoch, and the last parameters, are torch's."""
    model = net(**F64, batch_first=batch_first)
    theirs = torch.nn.Sequential(torch.nn.LSTM(2, 6, 2, batch_first=batch_first), torch.nn.Linear(6, 3)).double()
    theirs.load_state_dict({name: torch.tensor(a) for name, a in model.state_dict().items()})
    optimizer = torch.optim.AdamW(theirs.parameters(), 0.01)
    x, y = (a.swapaxes(0, 1) if batch_first else a for a in arrays(dtype=np.float64))
    axis, epoch_losses, norms = 0 if batch_first else 1, [], []
    for _ in range(4):
        total = 0.0
        for xs, ys in zip(torch.tensor(x).split(4, axis), torch.tensor(y).split(4, axis)):
            optimizer.zero_grad()
            value = torch.nn.functional.mse_loss(theirs[1](theirs[0](xs)[0]), ys)
            value.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm).item())
            optimizer.step()
            total += value.item() * ys.numel()
        epoch_losses.append(total / y.size)
    model, history = trained(model, x, y, optimizer=optim.AdamW(model, 0.01), shuffle=False, epochs=4,
                             clip_norm=clip_norm)
    tolerance = 1e-10 if clip_norm == math.inf else 1e-6        # torch's clipping divides by the norm and 1e-6 more
    np.testing.assert_allclose(history["loss"], epoch_losses, rtol=tolerance)
    np.testing.assert_allclose(history["gradient_norm"], np.reshape(norms, (4, 3)).mean(1), rtol=tolerance)
    assert clip_norm == math.inf or min(norms) < clip_norm < max(norms)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(model.parameters[name], value.numpy(), rtol=0, atol=tolerance, err_msg=name)


def test_what_it_tells_of_every_epoch():
    model = net()
    optimizer = optim.SGD(model, 0.1, schedule=optim.step_decay(3, 0.5))
    _, history = trained(model, *arrays(), optimizer=optimizer, validation=arrays(seed=1), epochs=3)
    assert list(history) == ["loss", "validation_loss", "gradient_norm", "skipped", "learning_rate", "seconds"]
    assert len(history) == 6 and history.epochs == 3 and all(len(values) == 3 for values in history.values())
    assert history["learning_rate"] == [0.05, 0.025, 0.0125] and history["skipped"] == [0, 0, 0]
    assert all(value > 0 for value in history["seconds"] + history["gradient_norm"])


def test_orders_are_of_the_seed_and_new_every_epoch():
    """With a learning rate of 0 epochs differ by nothing but their order, which the loss sees."""
    x, y = arrays(N=30)
    y[...] = np.arange(30)[:, None]         # a row's target is its number

    def seen(rng, shuffle=True):
        orders = []

        def loss(output, target, mask):
            orders.append(target[0, :, 0].astype(int).tolist())
            return losses.MSE()(output, target, mask)
        model = net()
        trained(model, x, y, loss=loss, optimizer=optim.SGD(model, 0.0), rng=rng, shuffle=shuffle)
        assert [len(rows) for rows in orders] == 2 * [*7 * [4], 2]
        return orders
    first = seen(1)
    assert seen(1) == seen(np.random.default_rng(1)) == first != seen(2)
    assert first[:8] != first[8:]
    assert sorted(np.concatenate(first[:8])) == sorted(np.concatenate(first[8:])) == [*range(30)]
    assert [*np.concatenate(seen(1, shuffle=False))] == 2 * [*range(30)] == [*np.concatenate(seen(2, shuffle=False))]


def test_a_layer_alone_a_linear_map_and_whole_numbers_are_trained():
    """Each model can learn its task: the loss falls to nearly 0."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 40, 2)).astype(np.float32)
    layer, linear = GRU(2, 3, rng=1), Linear(2, 3, rng=2)
    for model, y in ((GRU(2, 3, rng=0), layer(x)[0]), (Linear(2, 3, rng=0), linear(x)[0])):
        _, history = trained(model, x, y, optimizer=optim.Adam(model, 0.03), epochs=60, batch_size=10)
        assert history["loss"][-1] < history["loss"][0] / 500
    words = rng.integers(0, 5, (9, 60))
    y = np.concatenate([np.zeros((1, 60), int), words[:-1]])        # the word before
    model = Sequential(Embedding(5, 8, rng=0), GRU(8, 16, rng=1), Linear(16, 5, rng=2))
    trained(model, words, y, loss=losses.CrossEntropy(), optimizer=optim.Adam(model, 0.02), epochs=30, batch_size=10)
    assert (model(words)[0].argmax(-1) == y)[1:].all()


# ---- Ragged sequences ---------------------------------------------------------------------------

def test_one_update_of_ragged_rows_is_that_of_each_row_alone():
    """No valid element is lost and no padding counts: the gradient is the mean over all valid elements."""
    lengths = [5, 1, 12, 7]
    x, y = rows_of(lengths, **F64)
    model = net(**F64)
    expected = dict.fromkeys(model.parameters, 0)
    for a, b in zip(x, y):
        output, _, cache = model.forward(a)
        grads = model.backward(cache, losses.MSE()(output, b)[1]).parameters
        expected = {name: expected[name] + len(a) / sum(lengths) * grads[name] for name in grads}
    start = model.state_dict()
    trained(model, x, y, epochs=1)
    for name, value in start.items():
        np.testing.assert_allclose(value - model.parameters[name], 0.1 * expected[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("tbptt", [None, 4])
def test_a_list_is_an_array_with_lengths(tbptt, batch_first):
    """Whatever stands past the rows' ends changes nothing, with a mask too."""
    lengths = np.random.default_rng(0).integers(1, 14, 30)
    x, y = rows_of(lengths)
    mask = [np.random.default_rng(n).random(n) < 0.8 for n in lengths]
    first, history_first = trained(net(batch_first=batch_first), x, y, mask=mask, tbptt=tbptt, validation={
        "x": x, "y": y, "mask": mask})
    padded = []
    for rows, filled in ((x, np.nan), (y, np.nan), (mask, True)):
        padded.append(np.full((30, 20, *rows[0].shape[1:]), filled, rows[0].dtype))
        for n, row in enumerate(rows):
            padded[-1][n, :len(row)] = row
    x, y, mask = padded if batch_first else [a.swapaxes(0, 1) for a in padded]
    again, history_again = trained(net(batch_first=batch_first), x, y, mask=mask, lengths=lengths, tbptt=tbptt,
                                validation={"x": x, "y": y, "mask": mask, "lengths": lengths.tolist()})
    assert_same_bits(again.state_dict(), first.state_dict())
    assert_same_bits(numbers(history_again), numbers(history_first))


def test_rows_of_like_length_meet():
    lengths = np.random.default_rng(0).integers(1, 101, 1000)
    data = Data(net(), *rows_of(lengths), None, None)
    rng, padding, orders = np.random.default_rng(1), [], []
    for _ in range(3):
        batches = data.batches(8, rng)
        orders.append(np.concatenate(batches))
        assert sorted(orders[-1]) == [*range(1000)] and max(map(len, batches)) == 8
        padding.append(sum(lengths[rows].max() * len(rows) for rows in batches) / lengths.sum())
        # the minibatches come in any order, not from long to short
        means = [lengths[rows].mean() for rows in batches]
        assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
    assert max(padding) < 1.15, "without buckets it is 1.8"
    assert BUCKET * 8 < 1000 and not np.array_equal(orders[0], orders[1])
    unshuffled = np.concatenate(data.batches(8, None))
    assert (np.diff(lengths[unshuffled]) <= 0).all()


def test_rows_without_steps_and_minibatches_without_any():
    x, y = rows_of([0, 3, 0, 0, 0])
    model, history = trained(net(), x, y, batch_size=1)
    alone, expected = trained(net(), x[1:2], y[1:2], batch_size=1)
    assert_same_bits(model.state_dict(), alone.state_dict())
    assert history["loss"] == expected["loss"]
    start = net().state_dict()
    model, history = trained(net(), x[2:], y[2:])
    assert_same_bits(model.state_dict(), start)
    assert np.isnan(history["loss"]).all()


# ---- Masks --------------------------------------------------------------------------------------

def test_what_is_masked_does_not_count():
    """Targets may be anything where the mask is 0; a weight of 2 is the same as a row given twice."""
    x, y = arrays(dtype=np.float64)
    mask = np.ones(x.shape[:2])
    mask[5:, 3:] = 0
    clean, expected = trained(net(**F64), x, np.where(mask[..., None], y, 0), mask=mask)
    model, history = trained(net(**F64), x, np.where(mask[..., None], y, np.nan), mask=mask.astype(bool))
    assert_same_bits(model.state_dict(), clean.state_dict())
    assert_same_bits(numbers(history), numbers(expected))
    twice, _ = trained(net(**F64), np.concatenate([x, x[:, :2]], 1), np.concatenate([y, y[:, :2]], 1), batch_size=12)
    model, _ = trained(net(**F64), x, y, mask=np.where(np.arange(10) < 2, np.full((12, 1), 2.0), 1.0), batch_size=10)
    for name, value in twice.parameters.items():
        np.testing.assert_allclose(model.parameters[name], value, rtol=1e-9, atol=1e-12)


def test_minibatches_where_nothing_counts_change_nothing():
    x, y = arrays(N=8)
    mask = np.zeros((12, 8), bool)
    mask[:, :4] = True
    optimizers = []
    for rows in (slice(None), slice(4)):
        model = net()
        optimizers.append(optim.Adam(model))
        trained(model, x[:, rows], y[:, rows], mask=mask[:, rows], shuffle=False, optimizer=optimizers[-1])
    assert optimizers[0].steps == optimizers[1].steps == 2
    assert_same_bits(optimizers[0].model.state_dict(), optimizers[1].model.state_dict())


# ---- Truncated back-propagation -----------------------------------------------------------------

def test_pieces_carry_the_state():
    """The same by hand: an update after each piece, which starts from the state in which the piece before ended."""
    model, (x, y) = net(), arrays()
    model.load_state_dict(net().state_dict())
    trained(model, x, y, tbptt=5, batch_size=10, shuffle=False, epochs=1)
    hand = net()
    optimizer, state = optim.SGD(hand, 0.1), None
    for piece in (slice(0, 5), slice(5, 10), slice(10, 12)):
        output, state, cache = hand.forward(x[piece], state)
        optimizer.step(hand.backward(cache, losses.MSE()(output, y[piece])[1]).parameters)
    assert optimizer.steps == 3
    assert_same_bits(model.state_dict(), hand.state_dict())
    # every minibatch begins anew: a learning rate of 0 gives the losses of whole sequences
    still = net(**F64)
    x, y = arrays(dtype=np.float64)
    _, history = trained(still, x, y, tbptt=5, optimizer=optim.SGD(still, 0.0))
    assert history["loss"] == pytest.approx([evaluate(still, x, y, loss=losses.MSE())] * 2, rel=1e-12)


def test_one_piece_is_the_whole():
    for options in ({}, {"lengths": np.arange(10) + 2}):
        whole, _ = trained(net(), *arrays(), **options)
        model, _ = trained(net(), *arrays(), tbptt=12, **options)
        assert_same_bits(model.state_dict(), whole.state_dict())


def test_pieces_of_ragged_rows():
    """A row that ends early is treated as if it were alone: its last piece is short, and it has no more."""
    x, y = rows_of([11, 4, 7], **F64)
    still = net(**F64)
    _, history = trained(still, x, y, tbptt=3, optimizer=optim.SGD(still, 0.0), batch_size=3, epochs=1)
    total = sum(losses.MSE()(still(a)[0], b)[0] * len(a) for a, b in zip(x, y))
    assert history["loss"] == pytest.approx([total / 22], rel=1e-12)


# ---- Dropout ------------------------------------------------------------------------------------

def test_dropout_is_of_the_seed_and_in_training_alone():
    x, y = arrays()
    first, one = trained(net(dropout=0.5), x, y, rng=3, validation=(x, y), tbptt=5)
    again, two = trained(net(dropout=0.5), x, y, rng=3, validation=(x, y), tbptt=5)
    other, _ = trained(net(dropout=0.5), x, y, rng=4, shuffle=False)
    third, _ = trained(net(dropout=0.5), x, y, rng=5, shuffle=False)
    without, _ = trained(net(), x, y, rng=3, tbptt=5)
    assert_same_bits(again.state_dict(), first.state_dict())
    assert_same_bits(numbers(two), numbers(one))
    for left, right in ((other, third), (without, first)):
        assert not any(np.array_equal(a, right.parameters[name]) for name, a in left.parameters.items())
    assert min(one["validation_loss"]) == evaluate(first, x, y, loss=losses.MSE())


# ---- Gradients that are not finite --------------------------------------------------------------

@pytest.mark.parametrize("clip_norm", [math.inf, 1.0])
def test_an_update_without_a_finite_norm_is_skipped_with_a_warning(clip_norm):
    x, y = arrays(N=8)
    y[3, 5] = np.inf
    model = net()
    optimizer = optim.Adam(model)
    with pytest.warns(RuntimeWarning, match=r"norm is (nan|inf) in epoch 0, minibatch 1: update skipped") as warned:
        _, history = trained(model, x, y, optimizer=optimizer, shuffle=False, epochs=1, clip_norm=clip_norm)
    assert len(warned) == 1 and warned[0].filename == __file__
    assert history["skipped"] == [1] and optimizer.steps == 1 and np.isfinite(history["gradient_norm"]).all()
    good = net()
    trained(good, x[:, :4], y[:, :4], optimizer=optim.Adam(good), shuffle=False, epochs=1, clip_norm=clip_norm)
    assert_same_bits(model.state_dict(), good.state_dict())


# ---- Validation and early stopping --------------------------------------------------------------

def overfitting():
    """A model, data and options: few noisy rows, so that the validation loss is best in the middle of training."""
    model, teacher, data = net(), Linear(2, 3, rng=7), []
    for seed in (0, 1):
        x, noise = arrays(seed=seed)
        data.append((x, 2 * teacher(x)[0] + noise))
    return model, data[0], {"optimizer": optim.Adam(model, 0.1), "validation": data[1], "epochs": 60}


@pytest.mark.parametrize("patience", [None, 3])
def test_the_best_weights_are_kept(patience):
    model, data, options = overfitting()
    _, history = trained(model, *data, patience=patience, **options)
    best = history.best_epoch
    assert 3 < best < 50 and history["validation_loss"][-1] > min(history["validation_loss"])
    assert history.epochs == (60 if patience is None else best + 1 + patience)
    assert history["validation_loss"][best] == evaluate(model, *options["validation"], loss=losses.MSE())
    until, data, options = overfitting()
    trained(until, *data, **(options | {"epochs": best + 1}))
    assert_same_bits(until.state_dict(), model.state_dict())


def test_patience_ends_where_no_validation_loss_is_finite():
    x, y = arrays()
    model, history = trained(net(), x, y, validation=(x, np.full_like(y, np.nan)), epochs=9, patience=2)
    assert history.epochs == 2 and history.best_epoch is None
    assert_same_bits(model.state_dict(), trained(net(), x, y)[0].state_dict())      # no best: the last


def test_no_epochs_change_nothing():
    model, history = trained(net(), *arrays(), epochs=0, validation=arrays())
    assert_same_bits(model.state_dict(), net().state_dict())
    assert history.epochs == 0 and history.best_epoch is None and history.note() == ""


# ---- evaluate -----------------------------------------------------------------------------------

@pytest.mark.parametrize("loss", [losses.MSE(), losses.MAE(), losses.Huber(0.5), losses.Quantile([0.1, 0.5, 0.9])],
                         ids=repr)
def test_evaluate_is_the_mean_whatever_the_minibatches(loss):
    x, y = arrays(dtype=np.float64)
    model = net(**F64)
    weight = np.random.default_rng(0).random((12, 10))
    lengths = np.arange(10) + 3
    valid = np.where(np.arange(12)[:, None] < lengths, weight, 0)
    expected = loss(model(x)[0], y, valid)[0]
    for size in (1, 3, 10, 256):
        assert evaluate(model, x, y, loss=loss, batch_size=size, lengths=lengths, mask=weight) == pytest.approx(
            expected, rel=1e-12)
    assert math.isnan(evaluate(model, x, y, loss=loss, mask=np.zeros((12, 10))))


# ---- History ------------------------------------------------------------------------------------

def test_the_best_epoch():
    assert History({"loss": [3, 1, 1]}).best_epoch == 1
    assert History({"loss": [1, 2], "validation_loss": [np.nan, 5]}).best_epoch == 1
    assert History({"loss": [1, 2], "validation_loss": [-np.inf, np.nan]}).best_epoch is None
    assert History().best_epoch is None


def test_a_history_is_a_mapping():
    history = History({"loss": [2.0, 1.0], "seconds": [0.1, 0.1]})
    assert dict(history) == {"loss": [2.0, 1.0], "seconds": [0.1, 0.1]}
    assert repr(history) == "<History of 2 epochs: loss 1>" and repr(History()) == "<History of 0 epochs: >"
    for twin in (copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        twin.add({"loss": 0.5, "seconds": 1})
        assert twin["loss"] == [2.0, 1.0, 0.5] and history["loss"] == [2.0, 1.0]
    with pytest.raises(KeyError):
        history["colour"]


def test_the_plot_shows_the_losses_and_the_best():
    history = History({"loss": [3, 2, 1], "validation_loss": [5, 3, 4]})
    ax = history.plot()
    training, validation, best = ax.get_lines()
    assert training.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert validation.get_xydata().tolist() == [[1, 5], [2, 3], [3, 4]]
    assert set(best.get_xdata()) == {2}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation", "best"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert History({"loss": [1.0]}).plot(ax) is ax and len(ax.get_lines()) == 4
    assert "matplotlib.pyplot" not in sys.modules or ax.figure.number is None       # no window's business


def test_a_plot_is_written(tmp_path):
    ax = trained(net(), *arrays(), validation=arrays(seed=1))[1].plot()
    ax.figure.savefig(tmp_path / "losses.png")
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install fastrnn\[plot\]"):
        History({"loss": [1.0]}).plot()


# ---- Progress -----------------------------------------------------------------------------------

def test_a_bar_of_tqdm_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, history = trained(net(), *arrays(), epochs=3, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "training: 100%" in shown.err and "3/3" in shown.err
    assert f"loss {history['loss'][-1]:.4g}" in shown.err


@pytest.mark.parametrize("without", ["tqdm", "a terminal"])
@pytest.mark.parametrize("epochs, lines", [(3, [1, 2, 3]), (10, range(1, 11)), (25, [*range(2, 25, 2), 25])])
def test_plain_lines_without_tqdm_or_a_terminal(epochs, lines, without, capsys, monkeypatch):
    if without == "tqdm":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: without == "tqdm")
    _, history = trained(net(), *arrays(), epochs=epochs, progress=True, validation=arrays(seed=1))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        f"epoch {n} of {epochs}: loss {history['loss'][n - 1]:.4g}, validation loss "
        f"{history['validation_loss'][n - 1]:.4g}" for n in lines]


def test_the_progress_of_many_items(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert list(tracked(range(50), "row", "scoring", at_least=20)) == list(range(50))
    assert capsys.readouterr() == ("", "row 20 of 50\nrow 40 of 50\nrow 50 of 50\n")
    assert list(tracked(range(19), "row", "scoring", at_least=20)) == list(range(19))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(tracked(range(50), "row", "scoring", at_least=20)) == list(range(50))
    shown = capsys.readouterr()
    assert shown.out == "" and "scoring: 100%" in shown.err and "50/50" in shown.err


def test_without_a_console_nothing_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert trained(net(), *arrays(), progress=True)[1].epochs == 2
    assert capsys.readouterr().out == ""


def test_no_progress_prints_nothing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("not to be looked at"))
    trained(net(), *arrays())
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_closed_when_training_fails(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def loss(output, target, mask):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        trained(net(), *arrays(), loss=loss, progress=True)
    assert capsys.readouterr().err.endswith("\n")


# ---- Bad input ----------------------------------------------------------------------------------

MODEL = net()
X, Y = arrays()
ROWS = rows_of([3, 5])
BAD = {
    "model": [(TypeError, {"model": None}), (TypeError, {"model": fastrnn.GRUCell(2, 3)})],
    "x": [(ValueError, {"x": X[..., 0]}), (ValueError, {"x": Y}), (ValueError, {"x": X[0]}), (TypeError, {"x": None}),
          (TypeError, {"x": X.astype(complex)}), (ValueError, {"x": X.astype(np.float64)}), (ValueError, {"x": 3}),
          (ValueError, {"x": X[:, :0], "y": Y[:, :0]}), (ValueError, {"x": [], "y": []}), (TypeError, {"x": "words"}),
          (ValueError, {"x": [X[:, 0], Y[:, 0]]}), (ValueError, {"x": [1.0, 2.0], "y": [1.0, 2.0]})],
    "y": [(ValueError, {"y": Y[1:]}), (ValueError, {"y": Y[:, 1:]}), (TypeError, {"y": None}),
          (TypeError, {"x": ROWS[0]}), (ValueError, {"x": ROWS[0], "y": ROWS[1][:1]}),
          (ValueError, {"x": ROWS[0], "y": ROWS[1][::-1]}), (ValueError, {"y": Y[0, 0, 0]})],
    "loss": [(TypeError, {"loss": "mse"}), (TypeError, {"loss": lambda *arguments: 3.0}),
             (TypeError, {"loss": lambda *arguments: ("low", arguments[0])})],
    "d_output": [(TypeError, {"loss": lambda *arguments: (3.0, None)}),
                 (ValueError, {"loss": lambda *arguments: (3.0, X)})],
    "optimizer": [(TypeError, {"optimizer": "adam"}), (ValueError, {"optimizer": optim.Adam(net())})],
    "epochs": [(ValueError, {"epochs": -1}), (TypeError, {"epochs": 2.0}), (TypeError, {"epochs": True})],
    "batch_size": [(ValueError, {"batch_size": 0}), (TypeError, {"batch_size": None})],
    "lengths": [(ValueError, {"lengths": [1]}), (ValueError, {"lengths": [13] * 10}),
                (TypeError, {"lengths": [0.5] * 10}), (ValueError, {"x": ROWS[0], "y": ROWS[1], "lengths": [3, 5]})],
    "mask": [(ValueError, {"mask": np.ones((10, 12))}), (TypeError, {"mask": np.full((12, 10), "a")}),
             (ValueError, {"mask": -np.ones((12, 10))}), (TypeError, {"x": ROWS[0], "y": ROWS[1], "mask": X})],
    "tbptt": [(ValueError, {"tbptt": 0}), (TypeError, {"tbptt": "5"})],
    "clip_norm": [(ValueError, {"clip_norm": 0}), (ValueError, {"clip_norm": np.nan}), (TypeError, {"clip_norm": X}),
                  (TypeError, {"clip_norm": None})],
    "validation": [(TypeError, {"validation": X}), (TypeError, {"validation": (X, Y, Y)}),
                   (ValueError, {"validation": {"x": X}}), (ValueError, {"validation": {"x": X, "y": Y, "z": Y}})],
    "validation x": [(ValueError, {"validation": (Y, X)}), (ValueError, {"validation": (X.astype(np.float64), Y)})],
    "validation y": [(ValueError, {"validation": (X, Y[1:])}), (ValueError, {"validation": (X, Y[..., :2])})],
    "patience": [(ValueError, {"patience": 3}), (ValueError, {"patience": 0, "validation": (X, Y)})],
    "checkpoint": [(TypeError, {"checkpoint": 3}), (FileNotFoundError, {"checkpoint": "/nowhere/at/all/checkpoint"})],
    "checkpoint_every": [(ValueError, {"checkpoint_every": 3}),
                         (ValueError, {"checkpoint_every": 0, "checkpoint": "checkpoint"})],
    "shuffle": [(TypeError, {"shuffle": 1})],
    "rng": [(TypeError, {"rng": "seed"}), (ValueError, {"rng": -1})],
    "progress": [(TypeError, {"progress": None})],
    "target": [(ValueError, {"y": Y[..., :2]})],
}


@pytest.mark.parametrize("name, error, wrong", [
    pytest.param(name, *case, id=f"{name}-{i}") for name, cases in BAD.items() for i, case in enumerate(cases)])
def test_bad_input_changes_nothing(name, error, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = MODEL.state_dict()
    good = {"model": MODEL, "x": X, "y": Y, "loss": losses.MSE(), "optimizer": optim.Adam(MODEL), "epochs": 1,
            "batch_size": 4, "progress": False}
    with refuses(error, name):
        fit(**(good | wrong))
    assert_same_bits(MODEL.state_dict(), before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"reverse": True}])
def test_no_pieces_of_reversed_directions(options):
    model = Sequential(GRU(2, 3, rng=0, **options))
    with refuses(ValueError, "tbptt"):
        trained(model, X, Y, tbptt=3)
    y = np.concatenate([Y, Y], -1) if "bidirectional" in options else Y
    assert trained(model, X, y)[1].epochs == 2


@pytest.mark.parametrize("name, error, wrong", [
    ("model", TypeError, {"model": None}), ("loss", TypeError, {"loss": None}), ("x", ValueError, {"x": Y}),
    ("batch_size", ValueError, {"batch_size": 0}), ("lengths", ValueError, {"lengths": [-1] * 10})])
def test_bad_input_to_evaluate(name, error, wrong):
    with refuses(error, name):
        evaluate(**({"model": MODEL, "x": X, "y": Y, "loss": losses.MSE()} | wrong))
