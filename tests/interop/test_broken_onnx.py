"""Broken and hostile ONNX models: a ModelFormatError, bounded memory, bounded time, nothing read outside the folder."""

import contextlib
import os

import mutations
import numpy as np
import onnx
import pytest
from mutations import assert_refuses, assert_refuses_or_loads
from onnx import TensorProto, helper, numpy_helper

import fastrnn
from fastrnn import ModelFormatError
from fastrnn.interop.onnx import export, layers
from fastrnn.interop.onnx_graph import Model

LARGE = 150_000             # bytes of a hostile file; what holds of it holds of one of any size


# ---- The wire format ------------------------------------------------------------------------------

def varint(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def field(number, body):
    """A field of bytes, or of an int."""
    if isinstance(body, int):
        return varint(number << 3) + varint(body)
    return varint(number << 3 | 2) + varint(len(body)) + body


def model(*graph, others=b""):
    """ModelProto: ir_version, graph, opset_import, and others."""
    return field(1, 8) + field(7, b"".join(graph)) + field(8, field(2, 14)) + others


def node(op_type, inputs=(), outputs=(), *attributes, domain=""):
    return field(1, b"".join([*(field(1, name.encode()) for name in inputs),
                              *(field(2, name.encode()) for name in outputs), field(4, op_type.encode()),
                              *(field(5, attribute) for attribute in attributes), field(7, domain.encode())]))


def attribute(name, kind, body):
    return field(1, name.encode()) + body + field(20, kind)


def tensor(name, array):
    return field(5, b"".join(field(1, size) for size in array.shape) + field(2, TensorProto.FLOAT)
                 + field(8, name.encode()) + field(9, array.astype("<f4").tobytes()))


WEIGHTS = tensor("W", np.ones((1, 2, 1))) + tensor("R", np.ones((1, 2, 2)))
RNN = node("RNN", ["X", "W", "R"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Name -> bytes of models of every kind that is read."""
    folder, found = tmp_path_factory.mktemp("good"), {}
    for name, layer in (("lstm", fastrnn.LSTM(1, 2, 2, peephole=True, clip=1.5, rng=0)),
                        ("gru", fastrnn.GRU(2, 2, update="mirror", bidirectional=True, rng=0)),
                        ("int8", fastrnn.LSTM(2, 2, bidirectional=True, rng=0).quantized("int8")),
                        ("rnn", fastrnn.RNN(2, 3, activations=[("affine", 0.3, 0.1)], dtype=np.float64, rng=0))):
        export(layer, folder / "model.onnx")
        found[name] = (folder / "model.onnx").read_bytes()
    found["nested"] = nested_model().SerializeToString()
    return found


def nested_model():
    """Functions, subgraphs, constants that are folded, float16 in integers, floats that are not raw."""
    def constant(name, kind, shape, values):
        return helper.make_node("Constant", [], [name], value=helper.make_tensor("", kind, shape, values))

    make, numbers = helper.make_node, [float(x) for x in np.linspace(-1, 1, 24)]
    nodes = [constant("zero", TensorProto.INT64, [1], [0]), constant("one", TensorProto.INT64, [1], [1]),
             constant("two", TensorProto.INT64, [1], [2]), constant("shape", TensorProto.INT64, [3], [1, 8, -1]),
             constant("w", TensorProto.FLOAT16, [3, 8], numbers), make("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
             make("Transpose", ["w32"], ["wt"]), make("Unsqueeze", ["wt", "zero"], ["W"]),
             constant("r", TensorProto.FLOAT, [8, 2], numbers[:16]),
             make("Slice", ["r", "zero", "two", "one"], ["left"]), make("Concat", ["left"], ["r2"], axis=1),
             make("Reshape", ["r2", "shape"], ["R"]),
             make("LSTM", ["X", "W", "R"], ["out"], "lstm", clip=0.7, hidden_size=2)]
    function = helper.make_function("local", "encode", ["X"], ["out"], nodes, [helper.make_opsetid("", 14)])
    info = helper.make_tensor_value_info
    branch = helper.make_graph([make("encode", ["X"], ["y"], domain="local")], "branch", [],
                               [info("y", TensorProto.FLOAT, [None] * 4)])
    choice = make("If", ["which"], ["Y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([choice], "graph",
                              [info("X", TensorProto.FLOAT, [None] * 3), info("which", TensorProto.BOOL, [])],
                              [info("Y", TensorProto.FLOAT, [None] * 4)])
    return helper.make_model(graph, functions=[function], ir_version=8,
                             opset_imports=[helper.make_opsetid("", 14), helper.make_opsetid("local", 1)])


KINDS = ("lstm", "gru", "rnn", "nested", "int8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_good_ones_load(kind, good, path):
    assert assert_refuses_or_loads(layers, good[kind], path) is None
    names = {"lstm": ["LSTM"], "gru": ["GRU"], "rnn": ["RNN"], "nested": ["lstm", "lstm_1"], "int8": ["LSTM"]}
    assert list(layers(path)) == names[kind]


# ---- Cut and changed ------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_cut_at_every_byte(kind, good, path):
    """Refused as far as the graph and the operator set behind it go; later a file may end between two fields."""
    data = good[kind]
    end = Model(data).main.span[1] + 4
    assert len(data) > end > 200
    for size, broken in enumerate(mutations.truncations(data)):
        path.write_bytes(broken)
        if size < end:
            with pytest.raises(ModelFormatError, match=r"model\.onnx: "):
                layers(path)
        else:
            with contextlib.suppress(ModelFormatError):
                layers(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutations(kind, good, path):
    rng = mutations.generator(KINDS.index(kind))
    refused = 0
    for skipped in (None, {}):
        for broken in mutations.mixed(good[kind], rng, mutations.COUNT // 8, header=1000):
            error = assert_refuses_or_loads(lambda name, skipped=skipped: layers(name, skipped), broken, path)
            refused += error is not None
    assert refused > mutations.COUNT // 20


def test_random_bytes(path):
    rng = np.random.default_rng(0)
    for size in range(1, 200):
        assert_refuses(layers, rng.bytes(size), path)


def with_attribute(name, kind, body):
    return model(WEIGHTS, node("RNN", ["X", "W", "R"], [], attribute(name, kind, body)))


CLIP = attribute("clip", 1, b"\x15\0\0\x80\x3f")


@pytest.mark.parametrize("data, match", [
    (b"", "it has no graph"),
    (field(1, 8), "it has no graph"),
    (field(7, RNN), "names no operator set"),
    (model(RNN) + field(7, b""), "more than one graph"),
    (b"\x0b", "wire type 3 is not in use"),
    (b"\x00\x01", "a field numbered 0"),
    (b"\x08", "a number is cut off"),
    (b"\x08" + b"\x80" * 9, "a number is cut off"),
    (b"\x08" + b"\x80" * 11, "more than 64 bits"),
    (b"\x38\x01", "field 7 has wire type 0"),
    (b"\x3a\x7f" + bytes(126), "claims to end at byte"),
    (b"\x3d\0\0", "claims to end at byte"),
    (b"\x3a" + varint(2**63) + bytes(9), "claims to end at byte"),
    (b"\x3a" + varint(2**64 - 1), "claims to end at byte"),
    (model(b"\x0a\x05\x0a\x09abc"), "claims to end at byte"),
    (model(field(1, field(1, b"\xff") + field(4, b"RNN"))), "UnicodeDecodeError"),
    (model(WEIGHTS, WEIGHTS, RNN), "'W' is given more than once"),
    (model(WEIGHTS, node("RNN", ["X", "W", "R"], [], CLIP, CLIP)), "attribute 'clip' is given more than once"),
    (model(WEIGHTS, node("RNN", ["X", "W", "R", *"abcdef"])), "9 inputs, expected at most 8"),
    (model(node("RNN", ["X"])), "W: it is missing"),
    (model(WEIGHTS, node("Identity", ["W"], ["a", "b"]), node("RNN", ["X", "b", "R"])), "Identity node '' has 1 outp"),
    (with_attribute("hidden_size", 2, field(3, 2**63)), "hidden_size: expected at least 1, got -"),
    (with_attribute("hidden_size", 2, field(3, 2**62)), "W: expected shape"),
    (with_attribute("hidden_size", 7, field(8, 2)), "hidden_size: expected an int, got ndarray"),
    (with_attribute("activation_alpha", 6, field(7, b"abc")), "floats of 4 bytes"),
    (with_attribute("activations", 8, field(9, b"a") * 300), "more than 256 strings"),
])
def test_messages_that_lie(data, match, path):
    assert_refuses(layers, data, path, match)


@pytest.mark.parametrize("body, match", [
    (field(1, 2**62) + field(1, 4) + field(2, 1) + field(9, bytes(8)), "has 2 numbers of float32"),
    (field(1, 2**63) + field(2, 1) + field(9, b""), "has 0 numbers"),
    (field(1, 0) + field(1, 2**62) + field(1, 3) + field(2, 1), "array is too big|Maximum allowed"),
    (field(1, 1) * 33 + field(2, 1) + field(9, bytes(4)), "more than 32 dimensions"),
    (field(1, varint(1) * 40) + field(2, 1) + field(9, bytes(4)), "more than 32 dimensions"),
    (field(1, 1) + field(2, 1) + field(9, bytes(3)), "buffer size"),
    (field(1, 1) + field(2, 1), "has 0 numbers"),
    (field(1, 1) + field(2, 11) + field(9, bytes(4)), "buffer size"),
    (field(1, 1) + field(2, 1) + field(10, bytes(8)), "has 0 numbers"),
    (field(1, 1) + field(2, 1) + field(4, bytes(5)), "floats of 4 bytes"),
    (field(1, 1) + field(2, 1) + field(4, 1), "floats of 4 bytes with wire type 0"),
    (field(1, 1) + field(2, 11) + field(10, bytes(4)), "floats of 8 bytes"),
    (field(1, 1) + field(2, 8), "a tensor of type 8"),
    (field(1, 1) + field(2, 2**62) + field(9, bytes(4)), "a tensor of type"),
    (field(1, 1) + field(9, bytes(4)), "a tensor of type 0"),
    (field(1, 1) + field(2, 10) + field(5, b"\x80"), "a number is cut off"),
    (b"\x09" + bytes(8), "integers of wire type 1"),
])
def test_tensors_that_lie(body, match, path):
    assert_refuses(layers, model(field(5, body + field(8, b"W")), RNN), path, match)


# ---- Without end ------------------------------------------------------------------------------------

def test_nesting(path):
    graph = b""
    for _ in range(2000):
        graph = node("If", [], [], attribute("then_branch", 5, field(6, graph)))
    assert_refuses(layers, model(graph), path, "more than 64 deep")
    chain = b"".join(node("Identity", [f"x{k + 1}"], [f"x{k}"]) for k in range(5000))
    assert_refuses(layers, model(chain, node("RNN", ["X", "x0", "R"])), path, "more than 64 deep")
    circle = node("Identity", ["a"], ["b"]) + node("Identity", ["b"], ["a"])
    assert_refuses(layers, model(circle, node("RNN", ["X", "a", "R"])), path, "more than 64 deep")


def function(name, body):
    return field(25, field(1, name.encode()) + body + field(10, b"d"))


def test_functions_that_call_functions(path):
    def body(*names):
        return b"".join(field(7, field(4, name.encode()) + field(7, b"d")) for name in names)

    call = field(1, field(4, b"f0") + field(7, b"d"))
    itself = function("f0", body("f0"))
    assert_refuses(layers, model(call, others=itself), path, "more than 64 deep")
    doubling = b"".join(function(f"f{k}", body(f"f{k + 1}", f"f{k + 1}")) for k in range(60))
    assert_refuses(layers, model(call, others=doubling), path, "over and over|graphs and calls of functions")
    assert_refuses(layers, model(others=b"".join(function(f"f{k}", b"") for k in range(9000))), path, "8192 functions")


def test_constants_that_grow(path):
    axis = attribute("axis", 2, field(3, 0))
    doubling = [node("Concat", [f"a{k}", f"a{k}"], [f"a{k + 1}"], axis) for k in range(60)]
    data = model(tensor("a0", np.ones(1000)), *doubling, node("RNN", ["X", "a60", "R"]))
    assert_refuses(layers, data, path, "unfolds to more than 8 times its size")
    wide = node("Concat", ["a"] * 16000, ["W"], axis)
    assert_refuses(layers, model(tensor("a", np.ones(1000)), wide, RNN), path, "unfolds to more than 8 times its size")
    casts = [node("Cast", ["a"], [f"W{k}"], attribute("to", 2, field(3, 11))) for k in range(100)]
    users = [node("RNN", ["X", f"W{k}", "R"]) for k in range(100)]
    data, skipped = model(WEIGHTS, tensor("a", np.ones(100_000)), *casts, *users), {}
    assert_refuses(layers, data, path, "'RNN_0': W: expected 3 dimensions")
    assert assert_refuses_or_loads(lambda name: layers(name, skipped), data, path) is None
    assert "expected 3 dimensions" in skipped["RNN_0"] and "unfolds to more than 8 times" in skipped["RNN_99"]


@pytest.mark.slow
def test_large_constants_used_over_and_over(path):
    """What takes time to read is read once, or counted."""
    integers = field(5, field(1, LARGE) + field(2, TensorProto.INT64) + field(8, b"many") + field(7, b"\1" * LARGE))
    slices = [node("Slice", ["W", "many", "many"], [f"W{k}"]) for k in range(1000)]
    whole = node("Concat", [f"W{k}" for k in range(1000)], ["all"], attribute("axis", 2, field(3, 0)))
    data = model(WEIGHTS, integers, *slices, whole, node("RNN", ["X", "all", "R"]))
    assert_refuses(layers, data, path, f"starts: {LARGE} integers")
    parts = node("Split", ["W"], [f"part{k}" for k in range(5000)], attribute("axis", 2, field(3, 2)))
    whole = node("Concat", [f"part{k}" for k in range(5000)], ["all"], attribute("axis", 2, field(3, 2)))
    data = model(tensor("W", np.ones((1, 2, 5000))), tensor("R", np.ones((1, 2, 2))), parts, whole,
                 node("RNN", ["X", "all", "R"]))
    assert assert_refuses_or_loads(layers, data, path) is None
    constant = field(1, field(2, b"many") + field(4, b"Constant") + field(5, attribute(
        "value", 4, field(5, field(1, LARGE) + field(2, TensorProto.FLOAT16) + field(5, bytes(LARGE))))))
    calls = [node("f", [], [], domain="d") for _ in range(1000)]
    body = constant.replace(b"\x0a", b"\x3a", 1) + field(7, node("RNN", ["", "many", "many"])[2:])
    assert_refuses(lambda name: layers(name, {}), model(*calls, others=function("f", body)), path, "over and over")


@pytest.mark.slow
def test_layers_without_end(path):
    """Weights that many nodes share, each in a layer of its own."""
    clips = [node("RNN", ["X", "W", "R"], [], attribute("clip", 1, b"\x15" + np.float32(k + 1).tobytes()))
             for k in range(5000)]
    large = tensor("W", np.ones((1, 200, 1))) + tensor("R", np.ones((1, 200, 200)))
    assert_refuses(layers, model(large, *clips), path, "unfolds to more than 8 times its size")
    assert_refuses_or_loads(layers, model(WEIGHTS, RNN * 5000), path, plus=1 << 23)


HOSTILE = {
    "fields": lambda n: model(b"\x12\x00" * (n // 2)),
    "nodes": lambda n: model(b"\x0a\x00" * (n // 2)),
    "names": lambda n: model(b"\x0a\x03\x12\x01a" * (n // 5), RNN),
    "other names": lambda n: model(*(field(1, field(2, b"%06d" % k)) for k in range(n // 10)), RNN),
    "initializers": lambda n: model(b"\x2a\x03\x42\x01a" * (n // 5), RNN),
    "inputs": lambda n: model(b"\x5a\x03\x0a\x01a" * (n // 5), RNN),
    "inputs of that name": lambda n: model(b"\x5a\x03\x0a\x01W" * (n // 5), RNN),
    "outputs of that name": lambda n: model(field(1, b"\x12\x01W" * (n // 3)), RNN),
    "attributes": lambda n: model(field(1, b"\x2a\x00" * (n // 2))),
    "bare nodes": lambda n: model(b"\x0a\x05\x22\x03GRU" * (n // 7)),
    "dimensions": lambda n: model(field(5, b"\x10\x01\x42\x01W" + b"\x08\x01" * (n // 2)), RNN),
    "floats one by one": lambda n: model(field(5, b"\x10\x01\x42\x01W" + b"\x25abcd" * (n // 5)), RNN),
    "integers one by one": lambda n: model(field(5, b"\x10\x0a\x42\x01W" + b"\x28\x00" * (n // 2)), RNN),
    "packed integers": lambda n: model(field(5, b"\x10\x0a\x42\x01W" + field(5, bytes(n))), RNN),
    "bfloat16": lambda n: model(field(5, b"\x10\x10\x42\x01W" + field(9, bytes(n))), RNN),
    "entries": lambda n: model(field(5, b"\x10\x01\x42\x01W\x70\x01" + b"".join(
        field(13, field(1, b"%06d" % k)) for k in range(n // 10))), RNN),
    "ints": lambda n: model(WEIGHTS, node("RNN", ["X", "W", "R"], [], attribute("clip", 7, field(8, b"\1" * n)))),
    "floats": lambda n: model(WEIGHTS, node("RNN", ["X", "W", "R"], [], attribute("clip", 6, field(7, bytes(n))))),
    "graphs": lambda n: model(field(1, field(5, b"\x5a\x00" * (n // 2)))),
    "graphs of nodes": lambda n: model(b"\x0a\x04\x2a\x02\x32\x00" * (n // 6)),
    "functions": lambda n: model(others=b"\xca\x01\x02\x0a\x00" * (n // 5)),
    "metadata": lambda n: model(others=b"\x72\x00" * (n // 2)),
    "own metadata": lambda n: model(others=field(14, field(1, b"fastrnn") + field(2, b"[" * n))),
    "operator sets": lambda n: model(others=b"\x42\x00" * (n // 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_memory_and_time_are_bounded(kind, path):
    """Of files made of what takes least in a file and most in memory (protobuf's own parser: up to 100 times)."""
    data = HOSTILE[kind](LARGE)
    assert len(data) >= LARGE * 0.9
    assert_refuses_or_loads(lambda name: layers(name, {}), data, path, times=12, plus=1 << 18)


# ---- External data ----------------------------------------------------------------------------------

SIX = np.arange(6, dtype="<f4").tobytes()


@pytest.fixture
def external(tmp_path):
    """Writes a model whose W stands elsewhere, in a folder of its own beside a secret; gives its path."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(np.ones(6, "<f4").tobytes())

    def write(location, data=SIX, offset=None, length=None, **entries):
        W = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[1, 2, 3], data_location=TensorProto.EXTERNAL)
        entries |= {"location": location, "offset": offset, "length": length}
        for key, value in entries.items():
            if value is not None:
                W.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        R = numpy_helper.from_array(np.ones((1, 2, 2), np.float32), "R")
        graph = helper.make_graph([helper.make_node("RNN", ["X", "W", "R"], ["Y"], "rnn")], "graph", [], [], [W, R])
        (folder / "model.onnx").write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
        if data is not None:
            (folder / "weights").mkdir(exist_ok=True)
            for place in (folder / "data.bin", folder / "weights" / "w"):
                place.write_bytes(data)
        return folder / "model.onnx"
    return write


def test_external_data_are_read_unless_the_caller_says_not(external):
    wanted = np.arange(6, dtype=np.float32).reshape(2, 3)
    for options in ({"location": "data.bin"}, {"location": "weights/w", "offset": 0, "length": 24, "checksum": "x"},
                    {"location": "./data.bin", "data": bytes(4096) + wanted.tobytes(), "offset": 4096},
                    {"location": "data.bin", "data": wanted.tobytes() + bytes(9), "length": 24}):
        path = external(**options)
        with pytest.raises(ModelFormatError, match=r"'rnn': W: external data at '.*' is not read, as external_data=Fa"):
            layers(path, external_data=False)
        layer = layers(path)["rnn"]
        assert np.array_equal(layer.parameters["weight_ih_l0"], wanted)


def test_onnx_writes_external_data_that_are_read(tmp_path):
    layer = fastrnn.LSTM(20, 30, rng=0)
    export(layer, tmp_path / "whole.onnx")
    onnx.save(onnx.load(tmp_path / "whole.onnx"), tmp_path / "model.onnx", save_as_external_data=True,
              location="weights", size_threshold=100)
    assert (tmp_path / "weights").stat().st_size > 4 * 120 * 50
    found = layers(tmp_path / "model.onnx")["LSTM"]
    assert all(np.array_equal(found.parameters[name], a) for name, a in layer.parameters.items())


@pytest.mark.parametrize("location", [
    "../secret", "weights/../../secret", "..", "", "weights/..", "/etc/passwd", "/", "..\\secret",
    "weights\\..\\..\\secret", "C:\\secret", "C:secret", "\\\\host\\share\\secret", "\\secret", "//host/secret", "a\0b",
])
def test_places_outside_the_folder(location, external):
    with pytest.raises(ModelFormatError, match=r"external data at .*not a path within the model's folder"):
        layers(external(location))


def test_the_absolute_path_of_a_file_in_the_folder(external):
    path = external("data.bin")
    with pytest.raises(ModelFormatError, match="not a path within the model's folder"):
        layers(external(str(path.parent / "data.bin")))


def test_links(external, tmp_path):
    """Out of the folder they are not followed, by file or by folder; within it they are."""
    path = external("link")
    (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFormatError, match="a link out of the model's folder"):
        layers(path)
    (path.parent / "up").symlink_to(tmp_path)
    with pytest.raises(ModelFormatError, match="a link out of the model's folder"):
        layers(external("up/secret"))
    (path.parent / "within").symlink_to("data.bin")
    assert "rnn" in layers(external("within"))
    (tmp_path / "elsewhere.onnx").symlink_to(path)
    with pytest.raises(ModelFormatError, match="external data at 'within': No such file"):
        layers(tmp_path / "elsewhere.onnx")     # the folder is that of the name that was given


def test_a_model_in_the_working_directory(external, monkeypatch):
    monkeypatch.chdir(external("data.bin").parent)
    assert "rnn" in layers("model.onnx")


@pytest.mark.parametrize("location, options, match", [
    ("nowhere", {}, "No such file"), ("data.bin/x", {}, "Not a directory"), ("x" * 5000, {}, "File name too long"),
    (".", {}, "a directory|not a regular|buffer size"), ("weights", {}, "a directory|not a regular|buffer size"),
    ("data.bin", {"offset": 1}, "buffer size"), ("data.bin", {"offset": 25}, "from byte 25 of a file of 24"),
    ("data.bin", {"offset": -4}, "from byte -4"), ("data.bin", {"length": 25}, "25 bytes from byte 0 of a file of 24"),
    ("data.bin", {"length": -1}, "-1 bytes"), ("data.bin", {"length": 20}, "has 5 numbers"),
    ("data.bin", {"offset": 2**70, "length": 24}, "of a file of 24"), ("data.bin", {"offset": "x"}, "invalid literal"),
    ("data.bin", {"offset": "9" * 5000}, "integer string"), ("data.bin", {"data": b""}, "has 0 numbers"),
    ("data.bin", {"length": 0}, "has 0 numbers"),
])
def test_lies_about_external_data(location, options, match, external):
    with pytest.raises(ModelFormatError, match=rf"model\.onnx: RNN node 'rnn': .*(?:{match})"):
        layers(external(location, **options))


def test_nothing_is_read_of_external_data_of_the_wrong_size(external, monkeypatch):
    """A small model beside a large file: the shapes are compared before a byte of it is read."""
    path = external("data.bin")
    with open(path.parent / "data.bin", "r+b") as file:
        file.truncate(1 << 36)              # a sparse file, 64 GB long
    with mutations.bounded(1 << 20, 10), pytest.raises(ModelFormatError, match="has 17179869184 numbers"):
        layers(path)
    assert "rnn" in layers(external("data.bin", data=None, offset=1 << 20, length=24))


def test_mutations_of_a_model_with_external_data(external):
    """Models that say other things of the file beside them, which is as it was."""
    path = external("data.bin", data=SIX * 4, offset=24, length=24)
    good, refused = path.read_bytes(), 0
    for broken in mutations.mixed(good, mutations.generator(5), mutations.COUNT // 4):
        refused += assert_refuses_or_loads(lambda name: layers(name, {}), broken, path) is not None
    assert refused > mutations.COUNT // 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_for_external_data(external):
    path = external("fifo")
    os.mkfifo(path.parent / "fifo")
    with mutations.alarm(30), pytest.raises(ModelFormatError, match="not a regular file"):
        layers(path)


def test_a_missing_model_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        layers(tmp_path / "nowhere.onnx")
    with pytest.raises(OSError):
        layers(tmp_path)
