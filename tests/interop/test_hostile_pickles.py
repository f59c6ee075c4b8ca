"""Hostile pickles for interop.pytorch, in whole files: nothing of them runs, they take neither time nor memory."""

import pickle
import struct
import subprocess

import mutations
import pytest
from child import python
from torch_files import (
    NUMBERS,
    TIMES,
    archive,
    dict_of,
    in_both_formats,
    loads,
    name,
    number,
    pickled,
    refuses,
    storage,
    tensor,
    text,
    tuple_of,
)

from fastrnn.interop import pytorch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


# ---- Foreign names ------------------------------------------------------------------------------------

# module, function, arguments that would leave a file behind
ACTIONS = {
    "os.system": ("os", "system", lambda at: (f"echo > '{at}'",)),
    "posix.system": ("posix", "system", lambda at: (f"echo > '{at}'",)),
    "subprocess.Popen": ("subprocess", "Popen", lambda at: (["touch", str(at)],)),
    "builtins.eval": ("builtins", "eval", lambda at: (f"open({str(at)!r}, 'w').close()",)),
    "builtins.exec": ("builtins", "exec", lambda at: (f"open({str(at)!r}, 'w').close()",)),
    "__builtin__.eval": ("__builtin__", "eval", lambda at: (f"open({str(at)!r}, 'w').close()",)),
    "builtins.open": ("builtins", "open", lambda at: (str(at), "w")),
    "io.open": ("io", "open", lambda at: (str(at), "w")),
    "runpy.run_path": ("runpy", "run_path", lambda at: (str(at),)),
    "builtins.__import__": ("builtins", "__import__", lambda at: ("antigravity",)),
    "pickle.loads": ("pickle", "loads", lambda at: (b"N.",)),
    "torch.load": ("torch", "load", lambda at: (str(at),)),
    "torch.hub.load": ("torch.hub", "load", lambda at: (str(at), "x")),
    "torch.serialization.load": ("torch.serialization", "load", lambda at: (str(at),)),
    "torch._utils._import_dotted_name": ("torch._utils", "_import_dotted_name", lambda at: ("os.system",)),
    "torch.utils._config_module.exec": ("torch.utils._config_module", "exec", lambda at: ("",)),
    "collections.OrderedDict.__init__": ("collections", "OrderedDict.__init__", lambda at: ()),
    ".": ("", "", lambda at: ()),
}
# Those that may stand beside weights: they stay opaque, and are called as little as the others.
OPAQUE = {
    "pathlib.Path": ("pathlib", "Path", lambda at: (str(at),)),
    "builtins.getattr": ("builtins", "getattr", lambda at: (str(at), "touch")),
    "collections.defaultdict": ("collections", "defaultdict", lambda at: ()),
    "numpy.core.multiarray._reconstruct": ("numpy.core.multiarray", "_reconstruct", lambda at: ()),
    "fastrnn._base.writing.replacing": ("fastrnn._base.writing", "replacing", lambda at: (str(at),)),
    "fastrnn.interop.pickles.load": ("fastrnn.interop.pickles", "load", lambda at: (str(at),)),
    "torch.nn.Module": ("torch.nn", "Module", lambda at: ()),
    "numpy.save": ("numpy", "save", lambda at: (str(at), 1)),
    "numpy.fromfile": ("numpy", "fromfile", lambda at: (str(at),)),
    "a package that is not there": ("antigravity.sub", "Class", lambda at: (str(at),)),
}


def forms(module, function, arguments):
    """Every way in which a pickle can name what it wants, and have it called."""
    parts = b"".join(map(number, arguments))
    arguments = number(arguments)
    plain, stacked = name(module, function), text(module) + text(function) + b"\x93"
    inst = b"(" + parts + f"i{module}\n{function}\n".encode()
    return {
        "GLOBAL": plain, "STACK_GLOBAL": stacked, "REDUCE": plain + arguments + b"R",
        "STACK_GLOBAL REDUCE": stacked + arguments + b"R", "INST": inst, "OBJ": b"(" + plain + parts + b"o",
        "NEWOBJ": plain + arguments + b"\x81", "NEWOBJ_EX": plain + arguments + b"}\x92",
        "BUILD": plain + b")\x81" + dict_of(state=arguments) + b"b",
        "BUILD of a dict": b"}" + plain + arguments + b"Rb", "in a dict": dict_of(a=plain + arguments + b"R"),
        "as a key": b"}" + plain + arguments + b"RNs", "as a tensor": tensor(plain + arguments + b"R"),
        "as a storage": tensor(tuple_of(text("storage"), plain, text("0"), text("cpu"), number(6)) + b"Q"),
        "as a persistent id": plain + arguments + b"RQ", "popped": plain + arguments + b"R0" + tensor(),
        "as a hook": tensor(more=b"\x89" + plain + arguments + b"R"),
        "behind a tensor with attributes": name("torch._tensor", "_rebuild_from_type_v2") + tuple_of(
            plain, name("torch", "Tensor"), arguments, b"}") + b"R",
    }


@in_both_formats
@pytest.mark.parametrize("action", ACTIONS)
def test_foreign_names_are_refused_by_name(action, build, path, tmp_path):
    module, function, arguments = ACTIONS[action]
    made = tmp_path / "made"
    for form, value in forms(module, function, arguments(made)).items():
        shown = f"{module} {function}" if form == "INST" else f"{module}.{function}"
        refuses(build(pickled(value, protocol=4)), path, shown.replace(".", r"\."))
        assert not made.exists(), form


@in_both_formats
@pytest.mark.parametrize("action", OPAQUE)
def test_other_foreign_names_stay_opaque(action, build, path, tmp_path):
    """The tensors of the file are read, or it is refused for what it makes of the object, which is never made."""
    module, function, arguments = OPAQUE[action]
    made = tmp_path / "made"
    for form, value in forms(module, function, arguments(made)).items():
        data = build(pickled(value, protocol=4))
        error = mutations.assert_refuses_or_loads(pytorch.load_state_dict, data, path, times=TIMES)
        if error is None:
            assert set(pytorch.load_state_dict(path)) <= {""}, form
        assert not made.exists(), form


@pytest.mark.parametrize("action", ["os.system", "subprocess.Popen", "builtins.exec"])
def test_the_payloads_are_real(action, tmp_path):
    """Python's own unpickler runs them: those of above would have left a file."""
    module, function, arguments = ACTIONS[action]
    made = tmp_path / "made"
    for form in ("REDUCE", "STACK_GLOBAL REDUCE", "INST", "in a dict"):
        found = pickle.loads(pickled(forms(module, function, arguments(made))[form], protocol=4))
        if isinstance(found, subprocess.Popen):
            found.wait()
        for process in found.values() if isinstance(found, dict) else ():
            if isinstance(process, subprocess.Popen):
                process.wait()
        assert made.exists(), form
        made.unlink()


@pytest.mark.parametrize("place", ["magic", "protocol", "about", "keys"])
def test_foreign_names_in_the_other_pickles_of_the_older_format(place, path, tmp_path):
    payload = pickled(name("os", "system") + number((f"echo > '{tmp_path / 'made'}'",)) + b"R")
    parts = [pickle.dumps(part, 2) for part in (0x1950a86a20f9469cfc6c, 1001, {})] + [pickled(tensor()),
                                                                                      pickle.dumps(["0"], 2)]
    parts[{"magic": 0, "protocol": 1, "about": 2, "keys": 4}[place]] = payload
    refuses(b"".join(parts) + struct.pack("<q", 6) + NUMBERS, path, r"os\.system")
    assert not (tmp_path / "made").exists()


@in_both_formats
@pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_extension_codes_are_refused(code, build, path, tmp_path):
    """They name a global by a number that copyreg knows."""
    import copyreg
    copyreg.add_extension("os", "system", 1)
    try:
        payload = pickled(code + number((f"echo > '{tmp_path / 'made'}'",)) + b"R")
        refuses(build(payload), path, r"EXT\d .* 1$")
        assert not (tmp_path / "made").exists()
        assert pickle.loads(payload) == 0 and (tmp_path / "made").exists()
    finally:
        copyreg.remove_extension("os", "system", 1)
        copyreg.clear_extension_cache()


def test_nothing_is_imported_run_or_opened(path, tmp_path):
    """Python itself reports (an audit hook) what happens while files are read: the file is opened, nothing else."""
    for index, (module, function, arguments) in enumerate([*ACTIONS.values(), *OPAQUE.values()]):
        for count, value in enumerate(forms(module, function, arguments(tmp_path / "made")).values()):
            (tmp_path / f"{index}-{count}.pt").write_bytes(archive(pickled(value, protocol=4)))
    assert python(f"""
        import glob, pickletools, zipfile
        from fastrnn.interop import pytorch
        paths = sorted(glob.glob({str(tmp_path)!r} + "/*.pt"))
        def load(path):
            try:
                pytorch.load_state_dict(path)
                return 0
            except fastrnn.ModelFormatError:
                return 1
        load(paths[0])                                     # what reading needs is imported
        events, watching = [], True
        def hook(event, arguments):
            if watching and event.partition(".")[0] in (
                    "import", "exec", "compile", "open", "os", "subprocess", "socket", "pickle", "marshal", "ctypes"):
                events.append((event, str(arguments[0])))
        sys.addaudithook(hook)
        refused = sum(map(load, paths))
        watching = False
        foreign = [event for event in events if event[0] != "open" or event[1] not in paths]
        print({len(ACTIONS) * len(forms("os", "system", ()))} <= refused < len(paths), foreign)
    """) == "True []\n"
    assert not (tmp_path / "made").exists()


# ---- Pickles that lie ---------------------------------------------------------------------------------

ONE = tensor()                  # q\x00 puts it into memo 0
MANY = 20_000
DAMAGED = {
    "nothing": b"", "no stop": b"\x80\x02N", "only stop": b".", "unknown opcode": b"\x80\x02\xff.",
    "protocol 0 text": b"S'a'\n", "empty stack": pickled(b"0"), "reduce of nothing": pickled(b"R"),
    "reduce of one": pickled(b")R"), "append to none": pickled(b"NNa"), "append to a tuple": pickled(b")Na"),
    "set on a list": pickled(b"]NNs"), "odd items": pickled(b"}(Nu"), "odd dict": pickled(b"(Nd"),
    "no mark": pickled(b"t"), "memo never set": pickled(b"h\x05"), "memo below 0": pickled(b"g-1\n"),
    "put below 0": pickled(b"Np-1\n"), "memo far off": pickled(b"Nr\xff\xff\xff\xff"), "below a mark": pickled(b"(0"),
    "tuple below a mark": pickled(b"NN(N\x86"), "call of a tuple": pickled(b"))R"),
    "call of a dtype": pickled(name("torch", "float32") + b")R"),
    "call of a type": pickled(name("torch", "Tensor") + b")R"),
    "arguments no tuple": pickled(name("torch", "Size") + b"]R"), "build of a list": pickled(b"]}b"),
    "build of a tensor": pickled(ONE + b"}b"), "name of a number": pickled(b"NN\x93"), "new object": pickled(b")\x81"),
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.", "long long": pickled(b"\x8b\xff\xff\xff\x7f"),
    "negative length": pickled(b"\x8b\xff\xff\xff\xff"), "text 4G": pickled(b"X\xff\xff\xff\xffab"),
    "text 2**63": pickled(b"\x8d" + b"\xff" * 8), "bytes 4G": pickled(b"B\xff\xff\xff\xffab"),
    "bytearray": pickled(b"\x96" + b"\xff" * 7 + b"\x7f"), "no utf-8": pickled(b"X\x02\0\0\0\xff\xff"),
    "negative string": pickled(b"T\xff\xff\xff\xff"), "buffer": pickled(b"\x97"),
    "read-only buffer": pickled(b"N\x98"), "digits": b"I" + b"9" * 5000 + b"\n.", "no digits": b"Ix\n.",
    "set into itself": pickled(b"\x8f(\x8f\x91"),
    "ordered dict of numbers": pickled(name("collections", "OrderedDict") + b"](K\x01e\x85R"),
    "ordered dict of triples": pickled(name("collections", "OrderedDict") + b"](](NNNee\x85R"),
    "bytes of no text": pickled(name("_codecs", "encode") + b"N\x85R"),
    "rot13": pickled(name("_codecs", "encode") + number(("a", "rot13")) + b"R"),
    "parameter of nothing": pickled(name("torch._utils", "_rebuild_parameter") + b"NNN\x87R"),
    "function of a function": pickled(name("torch._tensor", "_rebuild_from_type_v2") + tuple_of(
        name("torch._tensor", "_rebuild_from_type_v2"), b"N", b")", b"N") + b"R"),
}


@in_both_formats
@pytest.mark.parametrize("kind", DAMAGED)
def test_pickles_that_are_none(kind, build, path):
    data = DAMAGED[kind]
    if kind == "set into itself":
        assert loads(build(data, {}), path) == {}
    else:
        refuses(build(data), path)


BOMBS = {
    "dicts": b"}" * MANY, "lists": b"](" + b"]" * MANY + b"e", "nested lists": b"]" * MANY + b"a" * (MANY - 1),
    "marks": b"(" * MANY, "deep tuple": b")" + b"\x85" * MANY, "deep tuple as a key": b"})" + b"\x85" * MANY + b"Ns",
    "pairs": b"K\x01" + b"2\x86" * MANY, "doubling tuples": b"]" + b"2\x86" * 500,
    "doubling lists": b"]q\x00" + b"0](h\x00h\x00eq\x00" * 200,
    "tripled dicts": dict_of(a=ONE) + b"q\x00" + b"".join(
        b"0" + dict_of(a=b"h\0", b=b"h\0", c=b"h\0") + b"q\0" for _ in range(60)),
    "list in itself": b"]q\x00(" + b"h\x00" * 1000 + b"e",
    "dict in itself": b"}q\x00(" + text("a") + b"h\x00" + text("b") + b"h\x00u",
    "tensor everywhere": ONE + b"q\x00](" + b"h\x00" * MANY + b"e",
    "long names": ONE + b"q\x00" + text("x" * 50000) + b"q\x01" + b"".join(b"}h\x01h\x00sq\x00" for _ in range(90)),
    "list copied": name("collections", "OrderedDict") + b"q\x00](" + b"](NNe" * 900 + b"e\x85q\x01]("
        + b"h\x00h\x01R" * 9000 + b"e",
    "text encoded again": name("_codecs", "encode") + b"q\x00" + text("x" * 50000) + text("latin1")
        + b"\x86q\x01](" + b"h\x00h\x01R" * 9000 + b"e",
    "many tensors": name("torch._utils", "_rebuild_tensor") + b"q\x00"
        + tuple_of(storage(), *map(number, (0, (6,), (1,)))) + b"q\x01](" + b"h\x00h\x01R" * 20000 + b"e",
}


@in_both_formats
@pytest.mark.parametrize("kind", BOMBS)
def test_pickle_bombs(kind, build, path):
    """Little memory, and no hang."""
    refuses(build(pickled(BOMBS[kind])), path, plus=1 << 20)


LARGE = {
    "strings": b"](" + b"\x8c\x02ab" * MANY + b"e", "numbers": b"](" + b"M\x00\x01" * MANY + b"e",
    "duplicates": b"N" + b"2" * MANY, "memos": b"N" + b"\x94" * MANY, "text": text("a" * MANY + "😀"),
    "number": number(2 ** (8 * MANY)), "bytes": b"B" + struct.pack("<I", MANY) + bytes(MANY),
    "spread memos": b"".join(b"Nr" + struct.pack("<I", 4 * at) for at in range(MANY // 10)),
    "empty tuples": b"(" + b")" * MANY + b"t",
    "colliding keys": b"}(" + b"".join(number(at * (2**61 - 1)) + b"N" for at in range(MANY // 4)) + b"u",
}


@in_both_formats
@pytest.mark.parametrize("kind", LARGE)
def test_large_and_harmless_pickles(kind, build, path):
    """They load, within bounds of memory; Python's own unpickler would take minutes for keys that all have one hash."""
    data = build(pickled(LARGE[kind], protocol=4), {})
    load = pytorch.load_state_dict
    assert mutations.assert_refuses_or_loads(load, data, path, times=TIMES, plus=1 << 20) is None
    mutations.assert_refuses(pytorch.layers, data, path, "there are no arrays", times=TIMES, plus=1 << 20)
