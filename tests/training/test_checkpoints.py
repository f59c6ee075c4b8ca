"""Checkpoints: a training stopped anywhere ends with the same bits; files are complete; other files are refused."""

import copy
import os
from itertools import product

import kills
import mutations
import numpy as np
import pytest
from helpers import assert_same_bits

import fastrnn
from fastrnn import GRU, LSTM, RNN, Linear, ModelFormatError, Sequential, losses, optim
from fastrnn.training import evaluate, fit


class Stopped(Exception):
    pass


def net(seed=0, dropout=0.0):
    return Sequential(LSTM(2, 5, 2, dropout=dropout, rng=seed), RNN(5, 4, rng=seed), Linear(4, 1, rng=seed))


def sequences(seed=0, rows=9):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, rows)
    return [[rng.standard_normal((n, size)).astype(np.float32) for n in lengths] for size in (2, 1)]


X, Y = sequences()


def train(path=None, *, stop=None, seed=0, dropout=0.3, optimizer=optim.AdamW, learning_rate=0.01, made=None,
          **options):
    """A training that uses everything a checkpoint keeps; an error stops it before its loss number `stop`.

    Its model and its optimizer are appended to the list `made`.
    """
    model, seen = net(seed, dropout), []

    class Loss(losses.Huber):
        def __call__(self, *arguments):
            seen.append(arguments)
            if len(seen) == stop:
                raise Stopped
            return super().__call__(*arguments)
    optimizer = optimizer(model, learning_rate, schedule=optim.cosine(40))
    if made is not None:
        made += model, optimizer
    options = {"epochs": 4, "batch_size": 4, "tbptt": 4, "clip_norm": 0.5, "validation": sequences(1), "patience": 3,
               "checkpoint_every": None if path is None else 1, "rng": seed} | options
    x, y = options.pop("data", (X, Y))
    history = fit(model, x, y, loss=options.pop("loss", Loss()), optimizer=optimizer, checkpoint=path, progress=False,
                  **options)
    return result(model, optimizer, history), len(seen)


def result(model, optimizer, history):
    kept = optimizer.state_dict()
    return {**model.state_dict(), **{f"optimizer.{name}": np.asarray(kept[name]) for name in kept},
            **{f"history.{name}": np.array(history[name]) for name in history if name != "seconds"}}


# ---- Going on -----------------------------------------------------------------------------------

def momentum(*arguments, **options):
    return optim.SGD(*arguments, momentum=0.9, **options)


def centered(*arguments, **options):
    return optim.RMSprop(*arguments, centered=True, momentum=0.5, **options)


@pytest.mark.parametrize("options", [
    {}, {"checkpoint_every": 3}, {"checkpoint_every": None}, {"tbptt": None, "validation": None, "patience": None},
    {"shuffle": False, "dropout": 0.0}, {"optimizer": momentum}, {"optimizer": centered}],
    ids=lambda options: "-".join(options) or "plain")
def test_stopped_before_any_loss_it_ends_with_the_same_bits(options, tmp_path, monkeypatch):
    """Stopped once at each moment, and resumed with other weights and another seed. At last nothing is left to do."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)       # it would only take time here
    options = {"data": sequences(rows=6), "epochs": 3} | options
    expected, moments = train(**options | {"checkpoint_every": None})
    assert moments >= (6 if options.get("tbptt", 4) is None else 15)
    for stop in range(1, moments + 1):
        path = tmp_path / f"checkpoint {stop}"
        with pytest.raises(Stopped):
            train(path, stop=stop, **options)
        resumed, _ = train(path, seed=5 if path.exists() else 0, **options)
        assert_same_bits(resumed, expected)
        assert not list(tmp_path.glob(".fastrnn-*"))
    again, computed = train(path, seed=6, **options)
    assert_same_bits(again, expected)
    assert computed == 0


def test_stopped_at_every_moment_of_one_training(tmp_path):
    """Every start of this training is stopped after its next update."""
    expected, moments = train()
    for _ in range(3 * moments):
        try:
            resumed, _ = train(tmp_path / "checkpoint", stop=3)
            break
        except Stopped:
            pass
    assert_same_bits(resumed, expected)


def test_the_seconds_of_all_the_parts_are_added(tmp_path, monkeypatch):
    now = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    model = net()
    options = {"loss": losses.MSE(), "epochs": 1, "batch_size": 4, "checkpoint": tmp_path / "c", "checkpoint_every": 1,
               "progress": False, "rng": 0}

    def broken(*arguments):
        raise Stopped
    with pytest.raises(Stopped):
        fit(model, X, Y, optimizer=optim.Adam(model, schedule=lambda step: 1.0 if step < 2 else broken()), **options)
    history = fit(model, X, Y, optimizer=optim.Adam(model), **options)
    assert 4 <= history["seconds"][0] <= next(now)


def test_more_epochs_and_more_patience_go_on_as_one_longer_training(tmp_path):
    expected, _ = train(epochs=5)
    train(tmp_path / "checkpoint", epochs=2)
    assert_same_bits(train(tmp_path / "checkpoint", epochs=5, seed=3)[0], expected)
    expected, _ = train(learning_rate=1.0, epochs=20, patience=4)
    short, _ = train(tmp_path / "early", learning_rate=1.0, epochs=20, patience=1)
    assert len(short["history.loss"]) < len(expected["history.loss"]) < 20
    assert_same_bits(train(tmp_path / "early", learning_rate=1.0, epochs=20, patience=4)[0], expected)


def test_the_model_has_the_best_weights_when_all_is_done_already(tmp_path):
    train(tmp_path / "checkpoint", learning_rate=0.3, epochs=8, dropout=0.0)
    model = net(4)
    history = fit(model, X, Y, loss=losses.Huber(), optimizer=optim.AdamW(model, 0.3, schedule=optim.cosine(40)),
                  epochs=8, batch_size=4, tbptt=4, clip_norm=0.5, validation=sequences(1), checkpoint=tmp_path / "new",
                  progress=False)
    again = net(5)
    fit(again, X, Y, loss=losses.Huber(), optimizer=optim.AdamW(again, 0.3), epochs=8, batch_size=4, tbptt=4,
        clip_norm=0.5, validation=sequences(1), checkpoint=tmp_path / "new", progress=False)
    assert_same_bits(again.state_dict(), model.state_dict())
    assert min(history["validation_loss"]) == evaluate(again, *sequences(1), loss=losses.Huber())


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """A part of tests/campaigns/kills.py: SIGKILL, and a new process that goes on."""
    counts = kills.contest(6, 0, tmp_path, report=lambda *text, **options: None)
    assert counts["kills"] >= 6 and counts["trainings"] >= 1 and counts["wrong"] == 0


# ---- The file -----------------------------------------------------------------------------------

def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The contents are synced before they have a name, then they take the checkpoint's, and the folder is synced."""
    path, events = tmp_path / "checkpoint", []

    def spy(name, real):
        def called(*arguments):
            if name == "fsync":
                folder = os.path.isdir(f"/proc/self/fd/{arguments[0]}")
                events.append((name, "folder" if folder else "file"))
            else:
                events.append((name, os.path.basename(arguments[1])))
            return real(*arguments)
        monkeypatch.setattr(os, name, called)
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("which file is synced is known from /proc")
    spy("fsync", os.fsync)
    spy("replace", os.replace)
    train(path, epochs=1, checkpoint_every=None)
    assert events == [("fsync", "file"), ("replace", "checkpoint"), ("fsync", "folder")]
    assert os.listdir(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_an_error_in_writing_leaves_the_checkpoint_before(name, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    expected, _ = train()
    with pytest.raises(Stopped):
        train(path, stop=9)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError("no space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(OSError, match="no space"):
            train(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["checkpoint"]
    assert_same_bits(train(path)[0], expected)


def test_names_of_every_kind(tmp_path, monkeypatch):
    """Paths may be str, bytes, path-like or relative, or symbolic links, which stay links."""
    monkeypatch.chdir(tmp_path)
    expected, _ = train()
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real" / "file", tmp_path / "link")
    for path in ("text", b"bytes", tmp_path / "päth", "link"):
        train(path, epochs=1)
        assert_same_bits(train(path)[0], expected)
    assert os.path.islink("link") and os.path.isfile("real/file")


# ---- Other files --------------------------------------------------------------------------------

OTHERS = {
    "model": {"dropout": 0.1}, "optimizer": {"optimizer": optim.SGD}, "learning_rate": {"learning_rate": 0.02},
    "options": {"optimizer": lambda model, *arguments, **options: optim.AdamW(model, *arguments, eps=1e-3, **options)},
    "loss": {"loss": losses.Huber(0.5)}, "batch_size": {"batch_size": 5}, "tbptt": {"tbptt": 5},
    "clip_norm": {"clip_norm": 1.0}, "shuffle": {"shuffle": False}, "data": {"data": (X, [2 * y for y in Y])},
    "validation": {"validation": sequences(2)}}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_training_is_refused_by_name(name, tmp_path):
    path = tmp_path / "checkpoint"
    train(path, loss=losses.Huber(), epochs=1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"^checkpoint: .* another training: {name} .* here"):
        train(path, **{"loss": losses.Huber()} | OTHERS[name])
    assert path.read_bytes() == before


@pytest.mark.parametrize("part", ["x", "y", "mask", "lengths", "dtype"])
def test_data_that_differ_anywhere_are_other_data(part, tmp_path):
    rng = np.random.default_rng(0)
    data = {"x": rng.random((5, 6, 2), np.float32), "y": rng.random((5, 6, 1), np.float32), "mask": np.ones((5, 6)),
            "lengths": np.full(6, 4)}

    def go():
        model = GRU(2, 1, rng=0)
        return fit(model, **data, loss=losses.MSE(), optimizer=optim.Adam(model), epochs=1, batch_size=3,
                   checkpoint=tmp_path / "checkpoint", progress=False)
    go()
    data = copy.deepcopy(data)
    assert go().epochs == 1
    if part == "dtype":
        data["mask"] = data["mask"].astype(bool)
    else:
        data[part].flat[-1] = 3
    with pytest.raises(ValueError, match="another training: data"):
        go()


def test_files_that_are_no_checkpoint_change_nothing(tmp_path):
    model = net(dropout=0.3)
    model.save(tmp_path / "model.npz")
    (tmp_path / "text").write_text("not an archive")
    (tmp_path / "empty").write_bytes(b"")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    (tmp_path / "folder").mkdir()
    before, names = model.state_dict(), sorted(os.listdir(tmp_path))
    for name in names:
        with pytest.raises((ModelFormatError, IsADirectoryError), match=name):
            fit(model, X, Y, loss=losses.MSE(), optimizer=optim.Adam(model), epochs=1, batch_size=4,
                checkpoint=tmp_path / name, progress=False)
    assert_same_bits(model.state_dict(), before)
    assert sorted(os.listdir(tmp_path)) == names
    with pytest.raises(ModelFormatError):
        train(tmp_path / "arrays.npz")


def test_broken_checkpoints_are_refused_or_go_on(tmp_path):
    """Files with changed, cut and mixed bytes give one kind of error, or resume what the checkpoint says."""
    path = tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        train(path, stop=20)
    good, refused = path.read_bytes(), 0
    for broken in mutations.mixed(good, np.random.default_rng(0), 150):
        path.write_bytes(broken)
        try:
            train(path)
        except ModelFormatError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("lie", [
    {"epoch": -1}, {"batch": "3"}, {"start": 1.5}, {"seed": -1}, {"steps": None}, {"carried": {"h": 0}},
    {"carried": [0, 99]}, {"history": ["loss", "colour"]}, {"position": []}, {"run": None}, {"class": "GRU"},
    {"batch": 3}, {"batch": 99}, {"batch": 4, "start": 0, "carried": None}, {"start": 99}, {"start": 0},
    {"carried": None}, {"carried": []}, {"carried": [[], [], []]}, {"carried": [None, None, None]},
    {"carried": [[0, 1], 1, None]}, {"carried": [0, 2, None]}, {"carried": [[1, 0], 2, 2]},
    {"carried": [[0, 0, 0], 2, None]}], ids=str)
def test_a_checkpoint_that_lies(lie, tmp_path):
    """It is refused by its name, and changes neither the model nor the optimizer."""
    import json
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Stopped):
        train(path, stop=20)
    with np.load(path) as file:
        arrays = dict(file)
    metadata = json.loads(arrays["fastrnn"].tobytes())
    for name, value in lie.items():
        (metadata["position"] if name in metadata["position"] else metadata)[name] = value
    np.savez(path, **arrays | {"fastrnn": np.frombuffer(json.dumps(metadata).encode(), np.uint8)})
    assert_changes_nothing(path)


def assert_changes_nothing(path):
    made = []
    with pytest.raises(ModelFormatError, match=r"checkpoint\.npz"):
        train(path, made=made)
    model, optimizer = made
    fresh = net(dropout=0.3)
    assert_same_bits(result(model, optimizer, {}), result(fresh, optim.AdamW(fresh, 0.01), {}))


@pytest.mark.parametrize("wrong, change", [
    *product(["model.0.bias_ih_l0", "best.2.weight", "optimizer.mean.2.bias", "history.loss", "sums"],
             ["missing", "shape"]), *product(["carried.0", "carried.2"], ["missing", "shape", "rows", "dtype"])])
def test_a_checkpoint_whose_arrays_do_not_fit(wrong, change, tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(Stopped):
        train(path, stop=20)
    with np.load(path) as file:
        arrays = dict(file)
    value = arrays.pop(wrong)
    changed = {"missing": {}, "shape": {wrong: np.ones((*value.shape, 2), value.dtype)}}
    if wrong.startswith("carried"):
        changed |= {"rows": {wrong: value[:, 1:]}, "dtype": {wrong: value.astype(np.float64)}}
    np.savez(path, **arrays | changed[change])
    assert_changes_nothing(path)


def test_a_model_is_not_loaded_from_a_checkpoint(tmp_path):
    train(tmp_path / "checkpoint.npz", epochs=1)
    with pytest.raises(ModelFormatError):
        fastrnn.load(tmp_path / "checkpoint.npz")
