"""fastrnn as a backend of ONNX: onnx's own BackendTest, and the rest of the interface."""

import unittest
import warnings

import numpy as np
import onnx
import onnx_nodes
import pytest
from child import python
from helpers import assert_same_bits
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import fastrnn
from fastrnn import interop
from fastrnn.interop.onnx import Backend, export, run_node

# ---- onnx's own tests -----------------------------------------------------------------------------

CASES = (
    *(f"test_gru_{case}" for case in ("batchwise", "bidirectional", "defaults", "reverse", "seq_length",
                                      "with_initial_bias")),
    *(f"test_lstm_{case}" for case in ("batchwise", "bidirectional", "defaults", "reverse", "with_initial_bias",
                                       "with_peepholes")),
    *(f"test_simple_rnn_{case}" for case in ("batchwise", "bidirectional", "defaults", "reverse",
                                             "with_initial_bias")),
    "test_rnn_seq_length")


@pytest.fixture(scope="module")
def node_tests():
    """onnx.backend.test.BackendTest's class of tests of single nodes; all but the recurrent ones would be skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # the cases of all operators are computed, and some overflow
        import onnx.backend.test
        tests = onnx.backend.test.BackendTest(Backend, __name__)
        for name in CASES:
            tests.include(f"^{name}_cpu$")
        return tests.test_cases["OnnxBackendNodeModelTest"]


@pytest.mark.parametrize("name", CASES)
def test_onnx_backend_test(node_tests, name):
    result = unittest.TestResult()
    node_tests(f"{name}_cpu").run(result)
    assert not result.errors + result.failures, "\n".join(text for _, text in result.errors + result.failures)
    assert result.testsRun == 1 and not result.skipped


def test_these_are_all_recurrent_cases(node_tests):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = onnx.backend.test.loader.load_model_tests(kind="node")
    assert sorted(CASES) == sorted(case.name for case in known if case.model is not None and any(
        node.op_type in onnx_nodes.GATES for node in case.model.graph.node))


# ---- The interface --------------------------------------------------------------------------------

@pytest.fixture
def node():
    """(onnx.ModelProto of one LSTM whose weights are inputs, its inputs, what run_node gives)."""
    op_type, inputs, attributes = onnx_nodes.draw(np.random.default_rng(0), "LSTM")
    return onnx_nodes.model(op_type, inputs, attributes), inputs, run_node(op_type, inputs, attributes)


def test_backend_is_a_class_made_when_asked_for():
    assert isinstance(Backend, type) and issubclass(Backend, onnx.backend.base.Backend)
    assert interop.onnx.Backend is Backend
    with pytest.raises(AttributeError, match="no attribute 'Frontend'"):
        interop.onnx.Frontend  # noqa: B018


def test_run_model(node):
    model, inputs, found = node
    outputs = Backend.run_model(model, list(inputs.values()))
    assert outputs._fields == ("Y", "Y_h", "Y_c")
    assert_same_bits(outputs._asdict(), found)
    assert_same_bits(outputs["Y_c"], found["Y_c"])
    assert_same_bits(Backend.run_model(model, inputs)._asdict(), found)


def test_prepared_models_run_again(node):
    model, inputs, found = node
    prepared = Backend.prepare(model)
    assert isinstance(prepared, onnx.backend.base.BackendRep)
    assert_same_bits(prepared.run(inputs)._asdict(), found)
    X = inputs["X"][::-1].copy()
    assert not np.array_equal(prepared.run(inputs | {"X": X}).Y, found["Y"])
    assert_same_bits(prepared.run(inputs)._asdict(), found)


def test_weights_that_are_constants_or_not(node):
    """Some, all, and the very input, as initializers."""
    _, inputs, found = node
    attributes = onnx_nodes.draw(np.random.default_rng(0), "LSTM")[2]
    for constant in (("W",), ("W", "R", "B", "P"), tuple(inputs)):
        model = onnx_nodes.model("LSTM", inputs, attributes, constant)
        given = [a for name, a in inputs.items() if name not in constant]
        assert_same_bits(Backend.run_model(model, given)._asdict(), found)


@pytest.mark.parametrize("opset", [7, 14, 22])
def test_operator_sets(opset, node):
    _, inputs, found = node
    model = onnx_nodes.model("LSTM", inputs, onnx_nodes.draw(np.random.default_rng(0), "LSTM")[2], opset=opset)
    assert_same_bits(Backend.run_model(model, inputs)._asdict(), found)


def test_run_node(node):
    model, inputs, found = node
    given = [inputs.get(name) for name in model.graph.node[0].input]
    assert None not in [type(a) for a in given]
    outputs = Backend.run_node(model.graph.node[0], given)
    assert_same_bits(outputs._asdict(), found)
    one = helper.make_node("GRU", ["X", "W", "R", "", "", "first"], ["", "last"], hidden_size=2)
    X, W, R, first = (np.ones(shape, np.float32) for shape in ((3, 2, 1), (1, 6, 1), (1, 6, 2), (1, 2, 2)))
    outputs = Backend.run_node(one, [X, W, R, None, None, first])
    assert_same_bits(outputs[1], run_node("GRU", {"X": X, "W": W, "R": R, "initial_h": first})["Y_h"])


def test_nodes_that_move_numbers():
    """Each as onnx's evaluator has it, in old and new operator sets."""
    x = np.arange(24.0).reshape(2, 1, 3, 4)

    def ints(*numbers):
        return np.array(numbers)

    for operator, others, attributes, count in (
            ("Identity", [], {}, 1), ("Transpose", [], {}, 1), ("Transpose", [], {"perm": [2, 0, 1, 3]}, 1),
            ("Reshape", [ints(0, -1, 2)], {}, 1), ("Reshape", [ints(6, 4)], {"allowzero": 1}, 1),
            ("Flatten", [], {}, 1), ("Flatten", [], {"axis": -1}, 1), ("Flatten", [], {"axis": 0}, 1),
            ("Squeeze", [], {}, 1), ("Squeeze", [ints(-3)], {}, 1), ("Unsqueeze", [ints(0, -1)], {}, 1),
            ("Slice", [ints(1), ints(3), ints(2)], {}, 1), ("Slice", [ints(0), ints(1)], {}, 1),
            ("Slice", [ints(-1, 3), ints(-2**63, 1), ints(3, -2), ints(-2, -1)], {}, 1),
            ("Slice", [ints(1, -100), ints(2**63 - 1, 100), ints(3, 2)], {}, 1),
            ("Split", [], {"axis": 3}, 2), ("Split", [ints(1, 2)], {"axis": -2}, 2), ("Split", [ints(2)], {}, 1),
            ("Concat", [x, x], {"axis": 1}, 1), ("Concat", [], {"axis": -1}, 1),
            ("Cast", [], {"to": TensorProto.FLOAT}, 1), ("Cast", [], {"to": TensorProto.INT32}, 1)):
        inputs = {f"x{k}": a for k, a in enumerate([x, *others])}
        outputs = [f"y{k}" for k in range(count)]
        one = helper.make_node(operator, list(inputs), outputs, **attributes)
        kinds = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
        graph = helper.make_graph(
            [one], "graph", [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
            [helper.make_tensor_value_info(name, attributes.get("to", TensorProto.DOUBLE), None) for name in outputs])
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 14)])
        wanted = ReferenceEvaluator(model).run(None, inputs)
        found = Backend.run_node(one, list(inputs.values()))
        assert len(found) == count
        assert_same_bits(dict(enumerate(found)), dict(enumerate(map(np.asarray, wanted))))


def test_nodes_that_move_numbers_in_older_operator_sets():
    """Axes and cuts were attributes once; onnx's checker is of today, so the node is computed without it."""
    from fastrnn.interop.onnx_operators import MOVES
    x = np.arange(24.0).reshape(2, 1, 3, 4)
    assert_same_bits(MOVES["Squeeze"]({"axes": [1]}, x), x[:, 0])
    assert_same_bits(MOVES["Unsqueeze"]({"axes": [0, 2]}, x), x[None, :, None])
    assert_same_bits(MOVES["Slice"]({"axes": [3, 2], "starts": [1, 0], "ends": [3, -1]}, x), x[:, :, :-1, 1:3])
    assert_same_bits(MOVES["Split"]({"split": [1, 3], "axis": 3}, x, count=2)[1], x[..., 1:])


def test_operators_within_loops():
    """What bodies of loops are computed with, as onnx's evaluator has it."""
    from fastrnn.interop.onnx_run import OPERATORS
    x, y, z = np.random.default_rng(0).standard_normal((3, 2, 4))
    for operator, inputs in (("Min", [x, y, z]), ("Max", [x, y]), ("Sum", [x, y, z]), ("Max", [x]),
                             ("Tile", [x, np.array([2, 3])])):
        names = [f"x{k}" for k in range(len(inputs))]
        values = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), None)
                  for name, a in zip(names, inputs)]
        graph = helper.make_graph([helper.make_node(operator, names, ["y"])], "graph", values,
                                  [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)])
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 14)])
        expected, = ReferenceEvaluator(model).run(None, dict(zip(names, inputs)))
        assert_same_bits(OPERATORS[operator]({}, *inputs), expected)


def test_compatible_models(node):
    model = node[0]
    assert Backend.is_compatible(model) and Backend.is_compatible(model, "CPU:0")
    assert not Backend.is_compatible(model, "CUDA")
    assert Backend.supports_device("CPU") and not Backend.supports_device("CUDA:1")
    with pytest.raises(ValueError, match="device: expected CPU, got 'CUDA'"):
        Backend.prepare(model, "CUDA")
    other = helper.make_node("Relu", ["x"], ["y"], "act")
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([other], "graph", shape[:1], shape[1:])
    foreign = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 14)])
    assert not Backend.is_compatible(foreign)
    with pytest.raises(NotImplementedError, match=r"Relu node 'act': only RNN, GRU, LSTM, .* are computed"):
        Backend.prepare(foreign)
    with pytest.raises(NotImplementedError, match="Relu node 'act'"):
        Backend.run_node(other, [np.ones(1, np.float32)])


def test_wrong_inputs(node):
    model, inputs, _ = node
    prepared = Backend.prepare(model)
    with pytest.raises(ValueError, match=f"inputs: expected X, W, R, .*, got {len(inputs) - 1} of them"):
        prepared.run(list(inputs.values())[:-1])
    with pytest.raises(ValueError, match=r"inputs: expected X, W, R, .*, got .*: x, W"):
        prepared.run({"x": inputs["X"]} | {name: a for name, a in inputs.items() if name != "X"})
    with pytest.raises(ValueError, match="W: expected shape"):
        prepared.run(inputs | {"W": inputs["W"][:, :-4]})
    with pytest.raises(onnx.checker.ValidationError):
        Backend.prepare(onnx.ModelProto())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "bidirectional": True},
                                     {"num_layers": 2, "batch_first": True}])
@pytest.mark.parametrize("cls", [fastrnn.RNN, fastrnn.GRU, fastrnn.LSTM])
def test_exported_layers_run_to_the_same_bits(cls, options, dtype, tmp_path):
    rng = np.random.default_rng(0)
    layer = cls(3, 5, dtype=dtype, rng=0, **options)
    export(layer, tmp_path / "layer.onnx")
    prepared = Backend.prepare(onnx.load(tmp_path / "layer.onnx"))
    for shape in ((7, 4, 3), (4, 1, 3)):
        x = rng.standard_normal(shape).astype(dtype)
        state = [rng.standard_normal((layer.num_layers * (1 + layer.bidirectional), shape[not layer.batch_first], 5))
                 .astype(dtype) for _ in range(1 + (cls is fastrnn.LSTM))]
        output, last = layer(x, tuple(state) if len(state) == 2 else state[0])
        wanted = {"output": output, **dict(zip(("h_n", "c_n"), last if len(state) == 2 else [last]))}
        assert_same_bits(prepared.run([x, *state])._asdict(), wanted)


def test_without_onnx_reading_works_and_the_rest_says_what_is_missing(tmp_path):
    layer = fastrnn.LSTM(2, 3, rng=0)
    export(layer, tmp_path / "layer.onnx")
    assert python("""
        import os, sys
        import numpy as np
        before = set(sys.modules)
        import fastrnn
        from fastrnn.interop import onnx
        sys.modules["onnx"] = None              # as if it were not there
        print(onnx.layers(os.environ["MODEL"]))
        onnx.run_node("RNN", {"X": np.ones((3, 1, 1)), "W": np.ones((1, 1, 1)), "R": np.ones((1, 1, 1))})
        names = {name.partition(".")[0] for name in set(sys.modules) - before - {"onnx"}} - sys.stdlib_module_names
        assert {name for name in names if "cython" not in name} - {"numpy"} == {"fastrnn"}, names
        for act in (lambda: onnx.Backend, lambda: onnx.export(fastrnn.GRU(2, 3), os.environ["MODEL"])):
            try:
                act()
            except ImportError as error:
                assert "pip install fastrnn[onnx]" in str(error), error
            else:
                raise AssertionError("no ImportError")
    """, prelude="", MODEL=str(tmp_path / "layer.onnx")) == "{'LSTM': LSTM(2, 3)}\n"
