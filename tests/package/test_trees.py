"""Plain trees as JSON and arrays: everything comes back to the bit, and nothing else can be kept or made."""

import collections
import dataclasses
import datetime
import json
import math
import zoneinfo

import numpy as np
import pytest

import fastrnn
from fastrnn import ModelFormatError
from fastrnn._base import trees
from fastrnn._base.trees import flatten, rebuild


def through_json(tree):
    value, arrays = flatten(tree)
    return rebuild(json.loads(json.dumps(value, allow_nan=False)), arrays)


def same(a, b):
    """Equal to the bit, and of the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype == b.dtype and a.shape == b.shape
                and (all(map(same, a.ravel().tolist(), b.ravel().tolist())) if a.dtype == object
                     else a.tobytes() == b.tobytes()))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple, collections.deque)):
        return len(a) == len(b) and all(map(same, a, b)) and getattr(a, "maxlen", 0) == getattr(b, "maxlen", 0)
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return a == b or (a != a and b != b)


ARRAY = np.arange(12.0).reshape(3, 4)
VALUES = [
    None, True, False, 0, -3, 2**200, 0.1, -0.0, math.inf, -math.inf, math.nan, 5e-324, "", "Grüße \ud800 \0",
    b"\0\xff", [], [1, [2.5, None]], (), (1, ("a",)), {}, {"a": 1, "": {"b": (2,)}},
    {1: "x", (2, "y"): 3.0, None: 4, 1.5: 5},
    [0.1] * 20, [math.nan, math.inf, -0.0] * 5, [1] * 20, [1.0, 2] * 10,
    ARRAY, ARRAY.T, ARRAY[:, ::2], ARRAY[::-1], np.array(3.5), np.empty((0, 4)), np.empty((3, 0, 2), np.float32),
    np.array([True, False]), np.arange(3, dtype=">i4").astype("<i4"), np.array([1.5], np.float16),
    np.array([2**64 - 1], np.uint64), np.array(["a", "longer", ""]), np.array(["\U0001f600"]), np.empty(0, "U3"),
    np.array(["load", None, 3], object), np.array([["a"], ["b"]], object), np.array(["2024-01-31", "NaT"], "M8[us]"),
    np.array([5, -7], "m8[h]"), np.datetime64("2024-02-29T12", "h"), np.timedelta64(3, "D"), np.datetime64("NaT"),
    np.float32(0.1), np.float64("nan"), np.int8(-5), np.bool_(True), np.str_("name"),
    datetime.datetime(2024, 5, 6, 7, 8, 9, 10), datetime.date(2024, 5, 6), zoneinfo.ZoneInfo("UTC"),
    collections.deque([1, (2, 3.0)]), collections.deque([1.5], maxlen=4),
]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_every_value_comes_back(number):
    value = VALUES[number]
    for tree in (value, [value, "beside", (value,)], {"a": {"b": value}}):
        assert same(through_json(tree), tree)


def test_arrays_of_the_other_byte_order_become_native():
    result = through_json(np.arange(3, dtype=">f8"))
    assert result.dtype == np.float64 and result.dtype.isnative and result.tolist() == [0, 1, 2]


@pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_generators_go_on(bits):
    generator = np.random.Generator(getattr(np.random, bits)(3))
    generator.standard_normal(5), generator.integers(9, dtype=np.int32)
    again = through_json(generator)
    assert again.random(4).tolist() == generator.random(4).tolist()
    assert again.integers(9, size=5, dtype=np.int32).tolist() == generator.integers(9, size=5, dtype=np.int32).tolist()


def test_a_random_state_goes_on():
    state = np.random.RandomState(4)
    state.standard_normal(3)
    assert through_json(state).standard_normal(3).tolist() == state.standard_normal(3).tolist()


@pytest.mark.parametrize("model", [
    fastrnn.GRU(2, 3, rng=0), fastrnn.LSTM(2, 4, 2, proj_size=2, rng=0), fastrnn.RNN(1, 2, nonlinearity="relu", rng=0),
    fastrnn.Sequential(fastrnn.GRU(2, 3, rng=0), fastrnn.Linear(3, 1, rng=0)), fastrnn.Linear(2, 2, dtype=np.float64)],
    ids=repr)
def test_models_come_back(model):
    again = through_json({"model": model})["model"]
    assert repr(again) == repr(model) and same(again.state_dict(), model.state_dict())
    assert not any(value.flags.writeable for value in again.parameters.values())


@pytest.mark.parametrize("kept, shared", [(True, True), (False, False)], ids=["as it stands", "in Fortran's order"])
def test_models_of_the_same_arrays_share_them(kept, shared):
    """Parameters lie row by row: others are copied."""
    model = fastrnn.GRU(2, 3, rng=0)
    value, arrays = flatten([model, dict(model.parameters)])
    if not kept:
        weights = value[0]["model"][1]["dict"]["weight_hh_l0"]["array"]
        weights.append("F")
    first, parameters = rebuild(value, arrays)
    weight = first.parameters["weight_hh_l0"]
    assert (weight is parameters["weight_hh_l0"]) == shared
    assert weight.flags.c_contiguous and not weight.flags.writeable
    assert first(np.ones((3, 1, 2), np.float32))[0].shape == (3, 1, 3)


@pytest.mark.parametrize("layer", [fastrnn.GRU(2, 3, 2, rng=0), fastrnn.LSTM(2, 3, rng=0)], ids=repr)
def test_streams_go_on(layer):
    x = np.random.default_rng(0).standard_normal((20, 3, 2)).astype(np.float32)
    stream = layer.stream(3)
    stream.run(x[:10])
    assert np.array_equal(through_json(stream).run(x[10:]), stream.run(x[10:]))


def test_one_array_under_two_names_stays_one():
    shared, twin = np.arange(5.0), np.arange(5.0)
    value, arrays = flatten([shared, shared[:], twin, shared[1:]])
    assert len(arrays["float64"]) == 14
    a, b, c, d = rebuild(value, arrays)
    assert a is b and a is not c and a.tolist() == c.tolist() and d.tolist() == [1, 2, 3, 4]
    generator = np.random.default_rng(0)
    first, second = through_json((generator, {"same": generator}))
    assert second["same"] is first


def test_arrays_are_ones_own_and_writable():
    value, arrays = flatten(np.arange(3.0))
    arrays["float64"].flags.writeable = False
    rebuild(value, arrays)[0] = 9
    assert arrays["float64"][0] == 0


# ---- Objects --------------------------------------------------------------------------------------

@pytest.fixture
def classes(monkeypatch):
    """A dataclass, a class with slots, and one with a state of its own, registered for one test."""
    monkeypatch.setattr(trees, "CLASSES", dict(trees.CLASSES))

    @trees.storable
    @dataclasses.dataclass(frozen=True)
    class Point:
        x: float
        name: object = "none"
        double: float = dataclasses.field(init=False, default=0.0)

        def __post_init__(self):
            object.__setattr__(self, "double", 2 * self.x)

    @trees.storable
    class Slotted:
        __slots__ = ("a", "b")

        def method(self):
            return self.a

    @trees.storable
    class Own:
        def __init__(self):
            self.a, self.view = 1, lambda: 2

        def __getstate__(self):
            return {"a": self.a}

        def __setstate__(self, state):
            self.__init__()
            self.a = state["a"]

        @property
        def one(self):
            return 1

    return Point, Slotted, Own


def test_objects_come_back(classes):
    Point, Slotted, Own = classes
    slotted, own = Slotted(), Own()
    slotted.a, own.a = [Point(1.5)], 7
    points, again, mine = through_json([(Point(0.5, "name"), Point(math.inf)), slotted, own])
    assert points == (Point(0.5, "name"), Point(math.inf)) and points[0].double == 1.0
    assert again.a == [Point(1.5)] and not hasattr(again, "b")
    assert mine.a == 7 and mine.view() == 2


def test_fields_that_a_file_lacks_take_their_defaults(classes):
    Point = classes[0]
    assert rebuild({"object": ["Point", {"x": 2}]}, {}) == Point(2)


@pytest.mark.parametrize("attributes", [{"name": "no x"}, {"x": 1, "y": 2}, {"x": 1, "double": 3}])
def test_fields_that_a_dataclass_has_not(attributes, classes):
    with pytest.raises(TypeError):
        rebuild({"object": ["Point", attributes]}, {})


@pytest.mark.parametrize("name", ["method", "__class__", "__dict__", "_ _", "1", ""])
def test_attributes_that_no_file_may_set(name, classes):
    with pytest.raises(ModelFormatError, match="no attribute that a file can set"):
        rebuild({"object": ["Slotted", {"a": 1, name: 2}]}, {})


def test_two_classes_of_one_name():
    class Clock:
        __module__ = "fastrnn.forecasting.elsewhere"

    import fastrnn.forecasting  # noqa: F401 - it has a Clock
    with pytest.raises(ValueError, match=r"two storable classes are called forecasting.Clock"):
        trees.storable(Clock)


def test_what_cannot_be_kept_is_named(classes):
    Point = classes[0]
    cases = {r"state\[1\]\['a'\]: .*, got function": [0, {"a": lambda: 0}],
             r"state\[0\]\.name: .*, got builtin_function_or_method": [Point(1.0, max)],
             r"state\.x\[2\]: .*, got set": Point([0, 1, {2}]),
             r"state: .*dtype complex128": np.array([1j]),
             r"state\[0\]: .*dtype \[\('a'": [np.zeros(2, [("a", "f8")])],
             r"state\[1\]: .*, got object": (1, object()),
             r"state\['b'\]: .*, got module": {"b": math}}
    for message, tree in cases.items():
        with pytest.raises(TypeError, match=message):
            flatten(tree)
    loop = []
    loop.append({"inner": loop})
    with pytest.raises(ValueError, match=r"state\[0\]\['inner'\]: it contains itself"):
        flatten(loop)


# ---- JSON that lies -------------------------------------------------------------------------------

LIES = [
    {}, {"tuple": [], "dict": {}}, {"eval": "1"}, {"tuple": 3}, {"dict": []}, {"pairs": [[1]]}, {"pairs": [[[], 1]]},
    {"float": "1e3"}, {"float": 3}, {"floats": 3}, {"floats": -1}, {"floats": True}, {"same": 0}, {"same": -1},
    [{"tuple": []}, {"same": 1}], [{"tuple": []}, {"same": -1}], {"tuple": [{"same": 0}]},
    {"array": ["float64", [3]]}, {"array": ["float64", [2, 2**62]]}, {"array": ["float64", [-1, -2]]},
    {"array": ["float64", [0, 2**70]]}, {"array": ["float64", "33"]}, {"array": ["object", [1]]},
    {"array": ["float64", [2], "C"]}, {"array": ["float64", [2], "F", 1]}, {"array": ["O", [0]]},
    {"array": ["U0", [10**12]]}, {"array": ["U99999999999999999999", [1]]}, {"array": ["Ux", [0]]},
    {"array": ["datetime64[us],f8", [0]]}, {"array": ["datetime64[parsec]", [0]]}, {"array": ["complex128", [0]]},
    {"array": 3}, {"array": []}, {"array": [["float64"], [2]]}, {"objects": [[10**12], []]}, {"objects": [[2], [1]]},
    {"object": ["dict", {}]}, {"object": ["Unknown", {}]}, {"object": [["forecasting.Clock"], {}]}, {"object": "Clock"},
    {"object": ["forecasting.Clock", {"start": 1}]}, {"object": ["forecasting.Clock", []]}, {"scalar": ["object", 1]},
    {"scalar": ["int8", 300]}, {"scalar": ["int8", None]}, {"scalar": 3}, {"text": 3}, {"bytes": 3},
    {"bytes": "not hex!"}, {"deque": [-1, []]},
    {"deque": [None, 3]}, {"deque": []}, {"zone": "../../../etc/passwd"}, {"zone": 3}, {"date": "soon"}, {"date": 3},
    {"generator": ["BitGenerator", {"dict": {}}]}, {"generator": ["PCG64", {"dict": {}}]}, {"generator": ["PCG64", 3]},
    {"generator": ["Generator", 0]}, {"random state": 3}, {"random state": {"dict": {"bit_generator": "PCG64"}}},
    {"model": 3}, {"model": [{"dict": {"class": "GRU"}}, {"dict": {}}]}, {"stream": [1, 2]}, {"stream": [None, None]},
]


@pytest.mark.parametrize("number", range(len(LIES)))
def test_json_that_lies(number, tmp_path):
    from fastrnn._base.reading import refusing
    with pytest.raises(ModelFormatError), refusing(tmp_path):
        rebuild(LIES[number], {})
    with pytest.raises(ModelFormatError), refusing(tmp_path):
        rebuild([LIES[number], {"array": ["float64", [2]]}], {"float64": np.zeros(2)})


def test_positions_out_of_a_generators_buffer():
    """NumPy takes them, and would read behind its buffer."""
    for bits, change in (("MT19937", lambda state: state["state"]["dict"].update(pos=10**6)),
                         ("MT19937", lambda state: state["state"]["dict"].update(pos=-1)),
                         ("Philox", lambda state: state.update(buffer_pos=5))):
        value, arrays = flatten(np.random.Generator(getattr(np.random, bits)(0)))
        change(value["generator"][1]["dict"])
        with pytest.raises(ModelFormatError, match=r"expected a (position|number) from 0"):
            rebuild(value, arrays)


def test_arrays_that_do_not_belong():
    value, arrays = flatten([np.zeros(3), np.zeros(2, np.int64)])
    for broken, message in (({**arrays, "float32": np.zeros(1, np.float32)}, "1 elements, of which 0 are used"),
                            ({**arrays, "float64": np.zeros(4)}, "4 elements, of which 3 are used"),
                            ({**arrays, "float64": np.zeros(2)}, "3 elements of float64, of which 2 are left"),
                            ({"int64": arrays["int64"]}, "3 elements of float64, of which 0 are left"),
                            ({**arrays, "float64": np.zeros((3, 1))}, "in one dimension"),
                            ({**arrays, "float64": np.zeros(3, np.float32)}, "got float32"),
                            ({**arrays, "weights": np.zeros(3)}, "'weights': expected one of")):
        with pytest.raises(ModelFormatError, match=message):
            rebuild(value, broken)
