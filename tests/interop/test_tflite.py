"""TensorFlow Lite: files of TensorFlow's converter, and every option of the fused operators, against LiteRT's runs."""

from pathlib import Path

import mutations
import numpy as np
import pytest
from helpers import assert_close
from mutations import assert_refuses, assert_refuses_or_loads

from fastrnn import ModelFormatError, interop
from fastrnn.interop.formats import flatbuffers
from fastrnn.interop.tflite import layers

FILES = Path(__file__).parent / "files" / "tflite.npz"
I, H = 3, 4


@pytest.fixture(scope="module")
def files():
    """Name -> (bytes, input, output in Keras) of what TensorFlow 2.21 made of layers of tf_keras and Keras 3.15."""
    with np.load(FILES) as archive:
        names = {name.rpartition(".")[0] for name in archive}
        return {name: (archive[f"{name}.file"].tobytes(), archive[f"{name}.x"], archive[f"{name}.y"])
                for name in names}


@pytest.fixture
def save(tmp_path):
    def write(data):
        (tmp_path / "model.tflite").write_bytes(data)
        return tmp_path / "model.tflite"
    return write


# ---- What TensorFlow's converter writes -------------------------------------------------------------

@pytest.mark.parametrize("name", ["lstm_float", "lstm_dynamic", "lstm_last_float", "lstm_time_major_float",
                                  "lstm_stack_float"])
def test_keras_layers_that_the_converter_fuses(name, files, save):
    data, x, y = files[name]
    path = save(data)
    assert interop.detect(path) == "tflite"
    found = interop.layers(path)
    assert len(found) == 1 + ("stack" in name)
    output = x
    for layer in found.values():
        assert layer.batch_first == ("time_major" not in name)
        output, _ = layer(output)
    assert_close({"y": output if y.ndim == 3 else output[:, -1]}, {"y": y}, 1e-5)


def test_layers_whose_inputs_the_model_reverses(files, save):
    """The operator is a forward one: the model turns its input, and of a bidirectional layer its output too."""
    data, x, y = files["lstm_back_float"]
    layer, = interop.layers(save(data)).values()
    assert_close({"y": layer(x[:, ::-1])[0]}, {"y": y}, 1e-5)
    data, x, y = files["bi_lstm_float"]
    forward, backward = sorted((layer(a)[0] for layer, a in zip(interop.layers(save(data)).values(), (x, x[:, ::-1]))),
                               key=lambda a: abs(a - y[..., :H]).max())
    other = [layer(x[:, ::-1])[0][:, ::-1] for layer in interop.layers(save(data)).values()]
    plain = [layer(x)[0] for layer in interop.layers(save(data)).values()]
    pairs = [np.concatenate([plain[0], other[1]], -1), np.concatenate([plain[1], other[0]], -1)]
    assert min(abs(pair - y).max() for pair in pairs) <= 1e-5
    assert forward.shape == backward.shape


def test_weights_of_16_bits(files, save):
    """The golden is the interpreter's, which rounds the weights as the file does."""
    tflite_files = pytest.importorskip("tflite_files")
    data, x, _ = files["lstm_float16"]
    layer, = interop.layers(save(data)).values()
    assert_close({"y": layer(x)[0]}, {"y": tflite_files.run(data, x)}, 1e-5)


@pytest.mark.parametrize("name, match", [
    ("lstm_int8", "a quantised operator: its input is int8"), ("gru_float", "a WHILE loop whose body looks like"),
    ("rnn_relu_float", "a WHILE loop"), ("lstm_mask_float", "a WHILE loop"), ("lstm_nobias_float", "a WHILE loop"),
])
def test_what_makes_no_layer_is_named(name, match, files, save):
    path, skipped = save(files[name][0]), {}
    with pytest.raises(ModelFormatError, match=match):
        layers(path)
    assert layers(path, skipped) == {} and match in "".join(skipped.values())


def test_models_without_recurrent_operators(files, save):
    """Of an unrolled layer nothing is left but products: the arrays are listed."""
    path, skipped = save(files["rnn_unroll_float"][0]), {}
    with pytest.raises(ModelFormatError, match=r"no recurrent layer: .*\(4, 3\).*interop\.from_arrays"):
        layers(path)
    assert layers(path, skipped) == {} and list(skipped) == [""]


# ---- Every option -------------------------------------------------------------------------------------

def arrays(rng, S=H, coupled=False, peephole=False, norm=False):
    """Arrays of an LSTM by the numbers of the operator's inputs; gates are i, f, c, o."""
    def uniform(*shape):
        return rng.uniform(-1, 1, shape).astype(np.float32)

    found = {number: uniform(H, I) for number in range(1, 5)} | {number: uniform(H, S) for number in range(5, 9)}
    found |= {number: uniform(H) for number in range(12, 16)}
    if peephole:
        found |= {number: uniform(H) for number in (9, 10, 11)}
    if S != H:
        found[16] = uniform(S, H)
    if norm:
        found |= {number: uniform(H) for number in range(20, 24)}
    return {number: a for number, a in found.items() if not (coupled and number in (1, 5, 9, 12, 20))}


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", [{}, {"coupled": True}, {"peephole": True}, {"S": 2},
                                  {"coupled": True, "peephole": True}, {"S": 2, "peephole": True, "coupled": True}])
def test_lstms(kind, half, time_major, save):
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(0)
    data = tflite_files.lstm(arrays(rng, **kind), (5, 2, I), time_major=time_major, half=half)
    layer = layers(save(data))["lstm"]
    assert layer.batch_first != time_major and layer.coupled_gates == kind.get("coupled", False)
    assert layer.peephole == kind.get("peephole", False) and layer.proj_size == kind.get("S", 0)
    x = rng.standard_normal((5, 2, I)).astype(np.float32)
    assert_close({"y": layer(x)[0]}, {"y": tflite_files.run(data, x)}, 1e-5)


@pytest.mark.parametrize("activation", ["RELU", "TANH"])
def test_activations_of_lstms(activation, save):
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(1)
    data = tflite_files.lstm(arrays(rng), (5, 2, I), activation=getattr(tflite_files, activation))
    x = rng.standard_normal((5, 2, I)).astype(np.float32)
    assert_close({"y": layers(save(data))["lstm"](x)[0]}, {"y": tflite_files.run(data, x)}, 1e-5)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("activation", ["NONE", "RELU", "TANH"])
def test_rnns(activation, half, time_major, save):
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(2)
    W, R, b = (rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((H, I), (H, H), (H,)))
    data = tflite_files.rnn(W, R, b, (5, 2, I), activation=getattr(tflite_files, activation), half=half,
                            time_major=time_major)
    layer = layers(save(data))["rnn"]
    assert layer.batch_first != time_major
    x = rng.standard_normal((5, 2, I)).astype(np.float32)
    assert_close({"y": layer(x)[0]}, {"y": tflite_files.run(data, x)}, 1e-5)


# ---- Hybrid operators: int8 weights, float inputs ----------------------------------------------------------

def loud_and_quiet(rng, time_major, T=30, N=4, size=I):
    """Rows of different sizes."""
    x = rng.standard_normal((T, N, size)) * np.array([0.1, 1, 3, 30])[:, None]
    return np.ascontiguousarray(x if time_major else x.swapaxes(0, 1)).astype(np.float32)


def distance(a, b):
    return float(np.sqrt(np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("kind", [{}, {"coupled": True}, {"peephole": True}, {"S": 2},
                                  {"S": 2, "peephole": True, "coupled": True}])
def test_hybrid_lstms(kind, time_major, save):
    """They agree with LiteRT to float32's rounding: both round each row of each step by its largest number."""
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(5)
    made = {number: tflite_files.whole(a) if number < 12 or number == 16 else a
            for number, a in arrays(rng, **kind).items()}
    x = loud_and_quiet(rng, time_major)
    path = save(tflite_files.lstm(made, x.shape, time_major=time_major))
    assert interop.detect(path) == "tflite"
    layer = interop.layers(path)["lstm"]
    assert layer.precision == "int8" and layer.batch_first != time_major
    assert layer.coupled_gates == kind.get("coupled", False) and layer.proj_size == kind.get("S", 0)
    output = layer(x)[0]
    assert_close({"y": output}, {"y": tflite_files.run(path.read_bytes(), x)}, 1e-5)
    floats = {number: a.values if isinstance(a, tflite_files.Whole) else a for number, a in made.items()}
    exact = tflite_files.run(tflite_files.lstm(floats, x.shape, time_major=time_major), x)
    assert 1e-5 < distance(output, exact) < 0.01        # it is int8 arithmetic that is compared


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("activation", ["NONE", "RELU", "TANH"])
def test_hybrid_rnns(activation, time_major, save):
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(6)
    W, R = (tflite_files.whole(rng.uniform(-0.4, 0.4, shape)) for shape in ((H, I), (H, H)))
    b, x = rng.uniform(-0.5, 0.5, H).astype(np.float32), loud_and_quiet(rng, time_major)
    data = tflite_files.rnn(W, R, b, x.shape, activation=getattr(tflite_files, activation), time_major=time_major)
    layer = layers(save(data))["rnn"]
    assert layer.precision == "int8"
    assert_close({"y": layer(x)[0]}, {"y": tflite_files.run(data, x)}, 1e-5)


@pytest.mark.parametrize("operator", ["lstm", "rnn"])
def test_hybrid_operators_with_zero_points_of_activations(operator, save):
    """LiteRT rounds otherwise then; ours is as near to float32, and the two differ by no more than both roundings."""
    tflite_files = pytest.importorskip("tflite_files")
    rng, size = np.random.default_rng(7), 24
    if operator == "lstm":
        made = {number: rng.uniform(-0.3, 0.3, (size, size)).astype(np.float32) for number in range(1, 9)}
        made |= {number: rng.uniform(-0.3, 0.3, size).astype(np.float32) for number in range(12, 16)}
    else:
        made = {number: rng.uniform(-0.2, 0.2, (size, size)).astype(np.float32) for number in (1, 2)}
    whole = {number: tflite_files.whole(a) if a.ndim == 2 else a for number, a in made.items()}
    exact = {number: a.values if isinstance(a, tflite_files.Whole) else a for number, a in whole.items()}
    x, bias = loud_and_quiet(rng, False, size=size), np.zeros(size, np.float32)

    def data(values, **options):
        if operator == "lstm":
            return tflite_files.lstm(values, x.shape, **options)
        return tflite_files.rnn(values[1], values[2], bias, x.shape, **options)

    theirs = tflite_files.run(data(whole, asymmetric=True), x)
    output = layers(save(data(whole, asymmetric=True)))[operator](x)[0]
    wanted = tflite_files.run(data(exact), x)
    assert distance(theirs, tflite_files.run(data(whole), x)) > 1e-5
    assert distance(output, wanted) < 1.5 * distance(theirs, wanted)
    assert distance(output, theirs) < distance(output, wanted) + distance(theirs, wanted)


def test_weights_of_8_bits_that_are_dequantised(save):
    """A float operator of them: the layer has the float numbers."""
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(8)
    made = {number: tflite_files.whole(a)._replace(zeros=(2,)) if a.ndim == 2 else a
            for number, a in arrays(rng).items()}
    x = rng.standard_normal((2, 5, I)).astype(np.float32)
    data = tflite_files.lstm(made, x.shape, half=True)
    layer = layers(save(data))["lstm"]
    assert layer.precision == "float32"
    halves = {number: a if a.ndim == 2 else a.astype(np.float16).astype(np.float32) for number, a in
              ((number, getattr(a, "values", a)) for number, a in made.items())}
    assert_close({"y": layer(x)[0]}, {"y": tflite_files.run(tflite_files.lstm(halves, x.shape), x)}, 1e-5)


def test_cell_states_that_are_held_to_a_bound(save):
    """Refused where it can be reached; read where the file's steps are too few for it, and where the caller says so."""
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(3)
    for steps, clip, activation, reachable in ((10, 10.0, "TANH", False), (11, 10.0, "TANH", True),
                                               (5, 10.0, "RELU", True), (5, 0.5, "TANH", True)):
        data = tflite_files.lstm(arrays(rng), (2, steps, I), cell_clip=clip,
                                 activation=getattr(tflite_files, activation))
        path, skipped = save(data), {}
        if reachable:
            with pytest.raises(ModelFormatError, match=r"its cell state is held to .*ignore_cell_clip=True"):
                layers(path)
            assert layers(path, skipped) == {} and list(skipped) == ["lstm"]
        x = 3 * rng.standard_normal((2, steps, I)).astype(np.float32)
        if clip == 10 and activation == "TANH":
            layer = interop.layers(path, ignore_cell_clip=True)["lstm"]
            assert_close({"y": layer(x)[0]}, {"y": tflite_files.run(data, x)}, 1e-5)


def test_options_that_no_layer_has(save):
    tflite_files = pytest.importorskip("tflite_files")
    rng = np.random.default_rng(4)
    W, R, b = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((H, I), (H, H), (H,)))
    shape, plain = (2, 5, I), arrays(rng)
    int8 = {number: tflite_files.whole(a) for number, a in plain.items() if a.ndim == 2}
    W8, R8 = tflite_files.whole(W), tflite_files.whole(R)
    for data, match in (
            (tflite_files.lstm(arrays(rng, norm=True), shape), "layer normalisation"),
            (tflite_files.lstm(arrays(rng, S=2), shape, proj_clip=0.5), "projection is held to -0.5...0.5"),
            (tflite_files.lstm(arrays(rng, S=2) | {17: np.ones(2, "f4")}, shape), "projection has a bias"),
            (tflite_files.lstm(plain, shape, diagonal=True), "diagonal"),
            (tflite_files.lstm(plain, shape, activation=tflite_files.RELU6), "the activation RELU6, which no layer"),
            (tflite_files.lstm({k: v for k, v in plain.items() if k != 1}, shape), "of gate i: they are given, but"),
            (tflite_files.lstm(plain, shape, state=np.ones((2, H), "f4")), "output state: it starts at numbers"),
            (tflite_files.lstm(plain | {7: int8[7]}, shape), "recurrent weights of gate g: int8, others float32"),
            (tflite_files.lstm(plain | {n: int8[n] for n in (1, 2, 3, 4)}, shape), "weights of float32 and int8"),
            (tflite_files.lstm(plain | int8 | {6: int8[6]._replace(zeros=(3,))}, shape), "gate f: int8 weights with a"),
            (tflite_files.lstm(plain | int8 | {6: int8[6]._replace(scales=())}, shape), "with 0 scales and 1 zero"),
            (tflite_files.lstm(plain | int8 | {6: int8[6]._replace(scales=(0.1,) * H, zeros=(0,) * H)}, shape),
             "with 4 scales and 4 zero points"),
            (tflite_files.lstm(plain | int8 | {6: int8[6]._replace(scales=(np.inf,))}, shape), "expected one finite"),
            (tflite_files.rnn(W8._replace(numbers=np.full(W.shape, -128, np.int8)), R8, b, shape),
             "weights with a zero point, or of -128"),
            (tflite_files.lstm(plain | {7: np.ones((H, 2), "f4")}, shape), r"gate g: expected shape \(4, 4\)"),
            (tflite_files.lstm({k: v for k, v in plain.items() if k != 3}, shape), "gate g: they are missing"),
            (tflite_files.lstm({k: v for k, v in plain.items() if k != 13}, shape), "bias of gate f: they are missing"),
            (tflite_files.lstm(plain, (2, 5, I + 1)), "its input has shape"),
            (tflite_files.rnn(W, R, b, shape, activation=tflite_files.RELU_N1_TO_1), "the activation RELU_N1_TO_1"),
            (tflite_files.rnn(W, R, b, shape, activation=tflite_files.SIGN_BIT), "the activation SIGN_BIT"),
            (tflite_files.lstm(plain | {16: np.ones((H, H), "f4")}, shape), "a projection of 4 to 4 numbers"),
            (tflite_files.rnn(W, R, b[:2], shape), r"bias: expected shape \(4,\)"),
            (tflite_files.rnn(W, R[:2], b, shape), r"recurrent weights: expected shape \(4, 4\)"),
            (tflite_files.rnn(W.astype("u1"), R, b, shape), "input weights: weights that are quantised to uint8"),
            (tflite_files.rnn(W8, R, b, shape), "weights of float32 and int8 in one operator")):
        path, skipped = save(data), {}
        with pytest.raises(ModelFormatError, match=match):
            layers(path)
        assert layers(path, skipped) == {} and len(skipped) == 1


@pytest.mark.parametrize("code, custom, named", [
    (46, None, "BIDIRECTIONAL_SEQUENCE_RNN"), (52, None, "BIDIRECTIONAL_SEQUENCE_LSTM"),
    (16, None, "LSTM, which is one"), (27, None, "SVDF"), (32, "MyGRU", "the custom operator 'MyGRU'"),
    (32, "Congruent", None), (0, None, None),
])
def test_other_operators(code, custom, named, save):
    """Beside one that is read."""
    tflite_files = pytest.importorskip("tflite_files")
    made = tflite_files.Builder()
    x = made.tensor(None, (2, 5, I), name="x")
    y = made.tensor(None, (2, 5, H), name="other")
    made.operator(code, [x], [y], custom=custom)
    skipped = {}
    found = layers(save(made.data([x], [y])), skipped)
    assert found == {} and list(skipped) == (["other"] if named else [""])
    assert named is None or named in skipped["other"]


def test_names(save):
    """Of the outputs, numbered where they are the same."""
    tflite_files = pytest.importorskip("tflite_files")
    made, rng = tflite_files.Builder(), np.random.default_rng(0)
    x = made.tensor(None, (2, 5, H), name="x")
    for name in ("a", "a", "b"):
        y = made.tensor(None, (2, 5, H), name=name)
        W, R, b = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((H, H), (H, H), (H,)))
        inputs = [x, *map(made.weights, (W, R, b)), made.tensor(None, (2, H), variable=True)]
        made.operator(tflite_files.RNN, inputs, [y])
        x = y
    assert list(layers(save(made.data([0], [y])))) == ["a", "a_1", "b"]


# ---- Broken files -----------------------------------------------------------------------------------------

NAMES = ("lstm_float", "lstm_float16", "lstm_stack_float", "gru_float", "lstm_int8")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutations(name, files, tmp_path):
    refused = 0
    for skipped in (None, {}):
        for broken in mutations.mixed(files[name][0], mutations.generator(NAMES.index(name)), mutations.COUNT // 4):
            error = assert_refuses_or_loads(lambda path, skipped=skipped: layers(path, skipped), broken,
                                            tmp_path / "model.tflite", seconds=5)
            refused += error is not None
    assert refused > mutations.COUNT // 20


@pytest.mark.slow
def test_mutations_of_a_hybrid_operator(tmp_path):
    tflite_files = pytest.importorskip("tflite_files")
    made = {number: tflite_files.whole(a) if a.ndim == 2 else a
            for number, a in arrays(np.random.default_rng(0), peephole=True).items()}
    refused = 0
    for broken in mutations.mixed(tflite_files.lstm(made, (2, 5, I)), mutations.generator(9), mutations.COUNT // 4):
        refused += assert_refuses_or_loads(layers, broken, tmp_path / "model.tflite", seconds=5) is not None
    assert refused > mutations.COUNT // 20


def test_cut_at_every_byte(files, tmp_path):
    for broken in mutations.truncations(files["lstm_float"][0], step=3):
        assert_refuses_or_loads(layers, broken, tmp_path / "model.tflite")
    for size in range(8):
        assert_refuses(layers, files["lstm_float"][0][:size], tmp_path / "model.tflite")


@pytest.mark.slow
def test_parts_that_are_used_over_and_over(tmp_path):
    """Graphs that are all one graph, whose operators are all one operator: refused in time."""
    tflite_files = pytest.importorskip("tflite_files")
    made, count = tflite_files.flatbuffers.Builder(1024), 20_000

    def repeated(part, count):
        made.StartVector(4, count, 4)
        for _ in range(count):
            made.PrependUOffsetTRelative(part)
        return made.EndVector()

    def table(**fields):
        made.StartObject(10)
        for number, part in fields.items():
            made.PrependUOffsetTRelativeSlot(int(number[1:]), part, 0)
        return made.EndObject()

    code, operator = table(), table()
    graph = table(_3=repeated(operator, count))
    made.Finish(table(_1=repeated(code, 1), _2=repeated(graph, count)), b"TFL3")
    assert_refuses(lambda path: layers(path, {}), bytes(made.Output()), tmp_path / "model.tflite", "over and over",
                   seconds=20)


@pytest.mark.parametrize("data, match", [
    (b"", "not a TensorFlow Lite model"), (b"\x08\0\0\0TFL3", "an offset to byte 8"),
    (b"\xff\xff\xff\xffTFL3" + bytes(40), "an offset to byte"), (b"\x1c\0\0\0TFL3" + bytes(64), "a vtable of 0 bytes"),
    (b"\x10\0\0\0TFL3" + bytes(4) + b"\4\0\4\0\4\0\0\0" + bytes(8), "without a graph"),
    (b"\x10\0\0\0TFL3" + bytes(8) + b"\x14\0\0\0" + bytes(40) + b"\4\0\4\0", "an offset to byte -4"),
])
def test_headers_that_lie(data, match, tmp_path):
    assert_refuses(layers, data, tmp_path / "model.tflite", match)


def test_vectors_that_lie():
    """A length is compared with the file before anything of that size is made."""
    data = b"\x10\0\0\0TFL3" + bytes(4) + b"\6\0\x08\0\4\0\0\0" + bytes(40)
    root = flatbuffers.Buffer(data).root()
    assert root.at == 16
    table = flatbuffers.Buffer(b"\x0c\0\0\0\6\0\x08\0\4\0\0\0\x08\0\0\0\4\0\0\0\xff\xff\xff\x7f")
    with pytest.raises(ModelFormatError, match="a vector of 2147483647 times 4 bytes"):
        table.root().array(0, "<f4")
