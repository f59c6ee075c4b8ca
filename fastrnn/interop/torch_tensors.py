"""What a pickle of PyTorch may name: storages, tensors and what makes them; all else is opaque, or refused.

A storage is a persistent id ("storage", type, key, device, elements), a tensor a call of
``torch._utils._rebuild_tensor_v2`` with a storage, an offset, sizes and strides counted in elements. Names are those
that PyTorch's own ``weights_only`` loading admits for dense tensors. Objects of other classes beside the weights stay
opaque and nothing of them is ever called; a pickle that would run code where PyTorch loads it is refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from .._base.reading import ModelFormatError
from .formats.pickles import Name, Opaque, Pairs, opaque, shown
from .parts import Unread

ADVICE = "in PyTorch, torch.save(model.state_dict(), path) writes what can be read here"
DTYPES = {name: np.dtype(code) for name, code in {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "complex64": "c8", "complex128": "c16",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
}.items()}
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32", "QUInt4x2": "uint8", "QUInt2x4": "uint8",
}


class Storage:
    """`length` elements from `start` on of what the file holds under `key`."""

    __slots__ = ("key", "dtype", "length", "start")

    def __init__(self, key: str, dtype: str, length: int, start: int = 0) -> None:
        self.key, self.dtype, self.length, self.start = key, dtype, length, start

    @property
    def nbytes(self) -> int:
        return self.length * DTYPES[self.dtype].itemsize


class Tensor:
    """A view of a storage, checked to lie within it; offset and strides count elements of dtype."""

    __slots__ = ("storage", "dtype", "offset", "size", "stride", "flags")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: str | None = None,
                 metadata: Any = None) -> None:
        if type(storage) is not Storage:
            raise ModelFormatError(f"a tensor made of a {type(storage).__name__}, expected a storage")
        if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > 64:
            raise ModelFormatError("a tensor's sizes and strides must be tuples of one length, 64 at most")
        if not all(map(is_count, (offset, *size, *stride))):
            raise ModelFormatError("a tensor's offset, sizes and strides must be ints from 0 on that 64 bits hold")
        self.storage, self.dtype = storage, dtype or storage.dtype
        self.offset, self.size, self.stride, self.flags = offset, size, stride, _flags(metadata)
        length = storage.length
        if self.dtype != storage.dtype:
            if storage.dtype != "uint8" or storage.start:
                raise ModelFormatError(f"a tensor of {self.dtype} on a storage of {storage.dtype}")
            length //= self.itemsize
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= length:
            raise ModelFormatError(f"a tensor of sizes {size}, strides {stride} and offset {offset} goes up to element "
                                   f"{last} of a storage of {length}")

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.itemsize


def _flags(metadata: Any) -> tuple[Any, ...]:
    """Of a tensor that is conjugated or negated when it is read."""
    if metadata is None:
        return ()
    if type(metadata) is not Pairs or any(flag not in ("conj", "neg") for flag in metadata[::2]):
        raise ModelFormatError("a tensor with properties other than conj and neg")
    return tuple(flag for flag, on in zip(metadata[::2], metadata[1::2], strict=True) if on is True)


def is_count(number: Any) -> bool:
    """Whether it is an int from 0 on that 64 bits hold."""
    return type(number) is int and 0 <= number < 1 << 63


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return Tensor(storage, offset, size, stride)


def _rebuild_tensor_v2(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any,
                       metadata: Any = None) -> Tensor:
    return Tensor(storage, offset, size, stride, metadata=metadata)


def _rebuild_tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any,
                       metadata: Any = None) -> Tensor | Unread:
    if type(dtype) is not Name or type(dtype.value) is not str:
        raise ModelFormatError("a tensor without a dtype")
    if dtype.value not in DTYPES:
        return Unread(f"it is of {dtype.name}, which NumPy has not: save .float()", _shape(size))
    return Tensor(storage, offset, size, stride, dtype.value, metadata)


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Tensor | Unread:
    if type(data) not in (Tensor, Unread):
        raise ModelFormatError(f"a parameter made of a {type(data).__name__}")
    result: Tensor | Unread = data
    return result


def _rebuild_from_type_v2(function: Any, cls: Any, arguments: Any, state: Any) -> Tensor | Unread:
    if type(function) is not Name or function.call is None or type(arguments) is not tuple:
        raise ModelFormatError("a tensor with attributes must come of one of torch's own functions")
    if type(cls) is not Name or cls.name not in _PLAIN:
        return Unread(f"it is a tensor of class {shown(cls.name if type(cls) is Name else cls)}", ())
    result = function.call(*arguments)
    if type(result) not in (Tensor, Unread):
        raise ModelFormatError("a tensor with attributes must come of one of torch's own functions")
    made: Tensor | Unread = result
    return made


def _shape(size: Any) -> tuple[int, ...]:
    """The sizes of a tensor that is not read, for messages."""
    return size if type(size) is tuple and len(size) <= 64 and all(map(is_count, size)) else ()


def _unread(reason: str, place: int | None = None) -> Any:
    """A function that stands for one that makes tensors which are not read; place: of their sizes in its arguments."""
    return lambda *arguments: Unread(reason, _shape(arguments[place]) if place is not None and place < len(arguments)
                                     else ())


def _ordered_dict(items: Any = ()) -> Pairs:
    """Python 2 hands over a list of [key, value], Python 3 nothing: it sets them one by one."""
    pairs = Pairs()
    for key, value in items:
        pairs += (key, value)
    return pairs


def _default_dict(factory: Any = None, items: Any = ()) -> Pairs:
    return _ordered_dict(items)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1") or type(text) is not str:
        raise ModelFormatError("bytes in another encoding than latin1")
    return text.encode("latin-1")


def _reconstructed(cls: Any, base: Any, state: Any) -> Opaque:
    """copyreg's way to an object without its class being called."""
    return Opaque(cls.name if type(cls) is Name else "an object")


def _same(value: Any = ()) -> Any:
    return value


def _nothing(*arguments: Any) -> None:
    return None


_CALLS: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type_v2,
    "torch._utils._rebuild_qtensor": _unread("it is quantised, and the scale of its numbers is not the weights': save "
                                             "the model before it is quantised", 2),
    "torch._utils._rebuild_sparse_tensor": _unread("it is sparse: save it .to_dense()"),
    "torch._utils._rebuild_sparse_csr_tensor": _unread("it is sparse: save it .to_dense()"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unread("it is of the meta device, which has no data", 1),
    "torch.Size": _same,
    "torch.device": _nothing,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _same,
    "copyreg._reconstructor": _reconstructed, "copy_reg._reconstructor": _reconstructed,
    "_codecs.encode": _encode,
    **{f"{module}.{name}": call for module in ("builtins", "__builtin__")
       for name, call in (("set", _same), ("frozenset", _same), ("bytearray", _nothing), ("complex", _nothing))},
}
_PLAIN = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_NAMES = {
    **{name: Name(name, call) for name, call in _CALLS.items()},
    **{name: Name(name, value=dtype) for kind, dtype in STORAGES.items()
       for name in (f"torch.{kind}Storage", f"torch.cuda.{kind}Storage")},
    "torch.storage.UntypedStorage": Name("torch.storage.UntypedStorage", value="uint8"),
    **{f"torch.{dtype}": Name(f"torch.{dtype}", value=dtype) for dtype in DTYPES},
    **{name: Name(name) for name in _PLAIN},
}
# Modules and functions that no checkpoint needs and that run code, open files or reach the network where Python's own
# unpickler calls them: a file that asks for one is hostile.
_HOSTILE = re.compile(
    r"(?:os|posix|nt|sys|subprocess|commands|pty|runpy|shutil|socket|ctypes|importlib|imp|pickle|_pickle|cPickle|dill"
    r"|cloudpickle|marshal|codeop|operator|_operator|io|_io|tempfile|webbrowser|multiprocessing|asyncio|threading|urllib"
    r"|http|requests|ftplib|smtplib|telnetlib|pip|setuptools|timeit|bdb|pdb|zipimport|pkgutil|pydoc|atexit|builtins"
    r"|__builtin__|torch\.(?:load|hub|serialization|package|utils\._config_module|distributed\.rpc|jit"
    r"|_utils\._import_dotted_name))(?:\..*)?"
    r"|(?:code|trace|profile|cProfile|types|doctest|unittest)\.(?:interact|Interactive\w+|Trace|run\w*|\w+Type)"
    r"|.*\.__(?!main__)\w+__")
_HARMLESS = re.compile(
    r"(?:builtins|__builtin__)\.(?:object|int|float|str|unicode|long|bytes|bool|list|dict|tuple|slice|x?range|type|len|sum"
    r"|min|max|abs|round|getattr|\w*Error|Exception|\w*Warning)|operator\.(?:attr|item)getter"
    r"|torch\.jit\._pickle\.\w+|torch\.serialization\._get_layout|numpy\.random\._pickle\.__\w+")


def find(name: str) -> Name:
    """What a global of this dotted name stands for; ModelFormatError for those that a checkpoint has no use for."""
    if name in _NAMES:
        return _NAMES[name]
    if re.fullmatch(r"torch\.(?:float|complex|u?int|bits)\d\w*|torch\.qu?int\d\w*", name):
        return Name(name, value=name)
    if name.startswith("torch._utils._rebuild_"):
        return Name(name, _unread(f"it is made by {name}, which is not known here"))
    parts = name.split(".")
    if not all(part.isidentifier() or part.startswith("<") for part in parts) or (
            _HOSTILE.fullmatch(name) and not _HARMLESS.fullmatch(name)):
        raise ModelFormatError(f"the pickle asks for {shown(name)}, which no weights need and which may run code where "
                               f"Python loads it. Nothing of it is run here; {ADVICE}")
    return opaque(name)
