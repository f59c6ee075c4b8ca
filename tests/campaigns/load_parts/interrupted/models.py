"""Calls of layers, streams, trainings, and of their files."""

import copy
import hashlib

import numpy as np

import fastrnn
from fastrnn import losses, optim, scale, training

from .registry import add, random, same


def digest(values):
    """A digest of arrays and numbers by name."""
    result = hashlib.sha256()
    for name, value in sorted(values.items()):
        result.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return result.hexdigest()


def unpacked(layer):
    """The same layer, whose weights will be packed by its next call."""
    other = copy.copy(layer)
    other._parameters = dict(layer._parameters)
    return other


# ---- Layers ---------------------------------------------------------------------------------------------

def of_layer(layer, call, x):
    """The layer must give the same bits as before on a short input."""
    short = x[:3, :2]
    expected = layer(short)

    def check():
        assert same(layer(short), expected), "the layer computes something else"
    return call, check


@add("layer(x)")
def layer_call(folder):
    layer, x = fastrnn.LSTM(512, 512, rng=0), random(300, 32, 512)
    return of_layer(layer, lambda: layer(x), x)


@add("layer(x), one row")
def row_call(folder):
    layer, x = fastrnn.GRU(256, 256, 2, rng=0), random(20000, 1, 256)
    return of_layer(layer, lambda: layer(x), x)


@add("layer(x), small")
def small_call(folder):
    layer, x = fastrnn.GRU(2, 8, rng=0), random(3_000_000, 1, 2)
    return of_layer(layer, lambda: layer(x), x)


@add("layer(x, lengths)")
def ragged_call(folder):
    layer, x = fastrnn.GRU(384, 384, rng=0, bidirectional=True), random(200, 32, 384)
    lengths = np.arange(32) * 6 + 10
    return of_layer(layer, lambda: layer(x, lengths=lengths), x)


@add("first layer(x)")
def first_call(folder):
    """Most of it is the packing of the weights."""
    layer, x = fastrnn.LSTM(3000, 3000, rng=0), random(3, 4, 3000)
    return of_layer(layer, lambda: unpacked(layer)(x), x)


@add("bidirectional, batch_first copies")
def copied_call(folder):
    """Most of it are copies of a large input, and zeros past the ends of the rows."""
    layer, x = fastrnn.RNN(64, 2, rng=0), random(400, 8000, 64)
    lengths = np.full(8000, 2)
    return of_layer(layer, lambda: layer(x, lengths=lengths), x)


@add("int8 layer(x)")
def int8_call(folder):
    layer, x = fastrnn.LSTM(512, 512, rng=0).quantized("int8"), random(1000, 16, 512)
    return of_layer(layer, lambda: layer(x), x)


@add("bfloat16 layer(x)")
def bfloat16_call(folder):
    layer, x = fastrnn.GRU(512, 512, rng=0).quantized("bfloat16"), random(400, 32, 512)
    return of_layer(layer, lambda: layer(x), x)


@add("forward")
def forward_call(folder):
    layer, x = fastrnn.LSTM(512, 512, rng=0), random(300, 32, 512)
    return of_layer(layer, lambda: layer.forward(x), x)


@add("backward")
def backward_call(folder):
    layer, x = fastrnn.LSTM(512, 512, rng=0), random(150, 32, 512)
    output, _, cache = layer.forward(x)
    return of_layer(layer, lambda: layer.backward(cache, output), x)


@add("backward, batch of bfloat16")
def bfloat16_backward(folder):
    layer, x = fastrnn.GRU(512, 512, rng=0), random(150, 32, 512)
    output, _, cache = layer.forward(x, precision="bfloat16")
    return of_layer(layer, lambda: layer.backward(cache, output), x)


@add("first backward")
def first_backward(folder):
    """Most of it are the transposes of the weights, and the gradients of weights from few rows."""
    layer, x = fastrnn.LSTM(2500, 2500, rng=0), random(2, 4, 2500)

    def call():
        other = unpacked(layer)
        output, _, cache = other.forward(x)
        other.backward(cache, output)
    return of_layer(layer, call, x)


@add("Sequential: Linear, Embedding")
def linear_call(folder):
    net = fastrnn.Sequential(fastrnn.Embedding(30000, 1024, rng=0), fastrnn.Linear(1024, 4096, rng=0),
                             fastrnn.Linear(4096, 1024, rng=0))
    x = np.random.default_rng(0).integers(0, 30000, (40, 64))
    short = x[:2, :2]
    expected = net(short)[0]

    def call():
        output, _, cache = net.forward(x)
        net.backward(cache, output)

    def check():
        assert same(net(short)[0], expected)
    return call, check


@add("LSTM(4000, 4000)")
def made(folder):
    """Initial weights."""
    return (lambda: fastrnn.LSTM(4000, 4000, rng=0)), lambda: None


@add("load_state_dict")
def loaded(folder):
    net = fastrnn.Sequential(*[fastrnn.GRU(1500, 1500, rng=seed) for seed in range(3)])
    states = [net.state_dict(), {name: value + 1 for name, value in net.state_dict().items()}]
    turn = [0]

    def call():
        turn[0] += 1
        net.load_state_dict(states[turn[0] % 2])

    def check():
        assert any(all(np.array_equal(value, state[name]) for name, value in net.parameters.items())
                   for state in states), "some of the weights are new, and some are old"
    return call, check


@add("gradient_flow")
def flow(folder):
    layer, x = fastrnn.LSTM(32, 48, rng=0), random(100, 4, 32)
    return of_layer(layer, lambda: fastrnn.diagnostics.gradient_flow(layer, x), x)


# ---- Streams --------------------------------------------------------------------------------------------

def of_stream(stream, call, x_t):
    """The stream is where it was before, or where it is after the call, and goes on from there.

    A stream that says that it needs a reset is whole after one.
    """
    before = copy.deepcopy(stream.state)
    call()
    after = copy.deepcopy(stream.state)
    stream.state = before

    def check():
        assert same(stream.state, before) or same(stream.state, after), "the state is torn"
        stream.step(x_t)
        stream.state = before
    return call, check


@add("stream.run")
def stream_run(folder):
    stream, x = fastrnn.LSTM(512, 512, rng=0).stream(32), random(300, 32, 512)
    return of_stream(stream, lambda: stream.run(x), x[0])


@add("stream.step")
def stream_step(folder):
    stream, x = fastrnn.LSTM(1024, 1024, 2, rng=0).stream(1000), random(1000, 1024)
    return of_stream(stream, lambda: stream.step(x), x)


@add("Sequential's stream.run")
def sequential_run(folder):
    layers = [fastrnn.GRU(32, 32, rng=seed) for seed in range(6)]
    stream, x = fastrnn.Sequential(*layers, fastrnn.Linear(32, 1, rng=0)).stream(8), random(12000, 8, 32)
    return of_stream(stream, lambda: stream.run(x), x[0])


@add("Sequential's stream.step")
def sequential_steps(folder):
    """Steps of a chain of layers: an interruption finds some layers before their step, and others after it."""
    layers = [fastrnn.GRU(16, 16, rng=seed) for seed in range(8)]
    net = fastrnn.Sequential(*layers)
    stream, x = net.stream(), random(16)
    zero, states = copy.deepcopy(stream.state), {}
    for n in range(300):
        states[digest({str(i): state for i, state in enumerate(stream.state)})] = n
        stream.step(x)

    def call():
        for _ in range(100):
            stream.state = zero
            for _ in range(299):
                stream.step(x)

    def check():
        state = digest({str(i): part for i, part in enumerate(stream.state)})
        assert state in states, "some of the layers took the step, and some did not"
        stream.reset()
    return call, check


@add("StreamPool.step")
def pool_step(folder):
    layer = fastrnn.LSTM(64, 128, rng=0)
    pool, keys, x = scale.StreamPool(layer, 20000), list(range(20000)), random(20000, 64)
    pool.step(keys, x)
    before = pool.snapshot()
    pool.step(keys, x)
    after = pool.snapshot()
    pool.restore(before)

    def check():
        assert pool.snapshot() in (before, after), "the pool's streams are torn"
        pool.restore(before)
    return (lambda: pool.step(keys, x)), check


# ---- Training -------------------------------------------------------------------------------------------

class Recording(optim.Adam):
    """Adam that keeps a digest of the weights and of all that it holds itself, after every step."""

    def __init__(self, model, learning_rate=1e-3):
        super().__init__(model, learning_rate)
        self.states = {of_training(model, self): 0}

    def step(self, gradients):
        super().step(gradients)
        self.states[of_training(self.model, self)] = self.steps


def of_training(model, optimizer):
    return digest({**model.parameters, **optimizer.state_dict()})


def of_fit(make, x, y, **options):
    """Weights and optimizer are those after one update or another, both after the same."""
    net = make()
    recording = Recording(net)
    training.fit(net, x, y, loss=losses.MSE(), optimizer=recording, rng=0, progress=False, **options)
    now = {}

    def call():
        net = make()
        now["net"], now["optimizer"] = net, optim.Adam(net)
        training.fit(net, x, y, loss=losses.MSE(), optimizer=now["optimizer"], rng=0, progress=False, **options)

    def check():
        if now:
            state = of_training(now["net"], now["optimizer"])
            assert state in recording.states, "weights and optimizer are those of no update"
            now["net"](x[:2])
    return call, check


@add("training.fit")
def fit(folder):
    """Small updates, many of them: an interruption often falls in one."""
    def make():
        return fastrnn.Sequential(fastrnn.GRU(3, 16, rng=0), fastrnn.GRU(16, 16, rng=1), fastrnn.Linear(16, 1, rng=2))
    return of_fit(make, random(12, 200, 3), random(12, 200, 1, seed=1), epochs=8, batch_size=4)


@add("training.fit, large")
def fit_large(folder):
    def make():
        return fastrnn.Sequential(fastrnn.LSTM(800, 800, rng=0), fastrnn.Linear(800, 1, rng=2))
    return of_fit(make, random(6, 8, 800), random(6, 8, 1, seed=1), epochs=2, batch_size=4)


@add("training.fit, checkpoint")
def fit_checkpoint(folder):
    """The checkpoint is whole: from it the training ends with the same weights."""
    x, y, path = random(12, 128, 3), random(12, 128, 1, seed=1), folder / "checkpoint"

    def train():
        net = fastrnn.Sequential(fastrnn.GRU(3, 16, rng=0), fastrnn.Linear(16, 1, rng=2))
        training.fit(net, x, y, loss=losses.MSE(), optimizer=optim.Adam(net), rng=0, progress=False, epochs=4,
                     batch_size=4, checkpoint=path, checkpoint_every=5)
        return digest(net.parameters)

    expected = train()
    path.unlink()

    def check():
        assert train() == expected, "a training that goes on from the checkpoint ends elsewhere"
        path.unlink()
        assert not list(folder.iterdir()), "a draft is left"
    return train, check


@add("training.fit, two processes")
def fit_parallel(folder):
    net = fastrnn.GRU(64, 64, rng=0)
    x, y = random(60, 64, 64), random(60, 64, 64, seed=1)

    def call():
        training.fit(net, x, y, loss=losses.MSE(), optimizer=optim.SGD(net, 1e-3), epochs=3, batch_size=16, rng=0,
                     progress=False, parallel=scale.processes(2, threads=1))

    def check():
        assert np.isfinite(net(x[:2])[0]).all()
    return call, check


@add("quantize")
def quantise(folder):
    net = fastrnn.Sequential(fastrnn.LSTM(1500, 1500, rng=0), fastrnn.Linear(1500, 10, rng=0))
    x, expected = random(3, 2, 1500), digest(net.parameters)

    def check():
        assert digest(net.parameters) == expected
    return (lambda: fastrnn.quantize(net, "int8", x)), check


# ---- Files ----------------------------------------------------------------------------------------------

def of_file(folder, name, write, read):
    """The file is the old one or the new one; nothing else is in the folder."""
    path, models = folder / name, [fastrnn.LSTM(2500, 2500, rng=seed) for seed in range(2)]
    digests = [digest(model.parameters) for model in models]
    turn = [0]
    write(models[0], path)

    def call():
        turn[0] += 1
        write(models[turn[0] % 2], path)

    def check():
        assert [entry.name for entry in folder.iterdir()] == [name], f"a draft is left: {list(folder.iterdir())}"
        assert digest(read(path).parameters) in digests, "the file is neither the old nor the new one"
    return call, check


@add("save .npz")
def save_npz(folder):
    return of_file(folder, "model.npz", fastrnn.LSTM.save, fastrnn.load)


@add("save .safetensors")
def save_safetensors(folder):
    return of_file(folder, "model.safetensors", fastrnn.LSTM.save, fastrnn.load)


@add("interop.onnx.export")
def export(folder):
    from fastrnn.interop import onnx
    return of_file(folder, "model.onnx", onnx.export, lambda path: next(iter(onnx.layers(path).values())))


def of_reading(folder, name, read):
    model = fastrnn.LSTM(2500, 2500, rng=0)
    model.save(folder / name)

    def check():
        assert digest(read(folder / name).parameters) == digest(model.parameters)
    return (lambda: read(folder / name)), check


@add("load .npz")
def load_npz(folder):
    return of_reading(folder, "model.npz", fastrnn.load)


@add("load .safetensors")
def load_safetensors(folder):
    return of_reading(folder, "model.safetensors", fastrnn.load)
