"""PyTorch's files (``torch.save``: .pt, .pth, .bin, .ckpt), read without PyTorch.

Two formats are in use, told by the first bytes:

- a zip archive (PyTorch 1.6 on): under one folder of any name ``data.pkl``, the pickled object; ``data/<key>``, the
  bytes of each storage; ``byteorder``, and what does not matter here;
- the older one: five pickles, of a magic number, a protocol version, facts about the machine, the object, and the keys
  of its storages; then of each storage the number of its elements (8 bytes) and the elements, little-endian.

In the pickle a storage is a persistent id ("storage", type, key, device, elements), a tensor a call of
``torch._utils._rebuild_tensor_v2`` with a storage, an offset, sizes and strides counted in elements. It is read by
``pickles``, which can run nothing, and is given the names that PyTorch's own ``weights_only`` loading admits for dense
tensors.
"""

from __future__ import annotations

import io
import math
import os
import re
from typing import TYPE_CHECKING

import numpy as np

from .._base.reading import Archive, ModelFormatError, read_bytes, refusing
from .conventions import find_layers, given_options
from .formats import pickles
from .formats.pickles import Name, Pairs, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Activation, Array, PathLike
    from .conventions import Layer

_ADVICE = "in PyTorch, torch.save(model.state_dict(), path) writes what can be read here"
_DEEPEST = 100              # containers within containers
# The tensors may take this many times the bytes of the file's contents, and _SPARE more: some stand in several places
# (tied weights, a model under two names) or are broadcast.
_SHARING = 4
_SPARE = 1 << 20

_DTYPES = {name: np.dtype(code) for name, code in {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "complex64": "c8", "complex128": "c16",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
}.items()}
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}


def load_state_dict(path: PathLike) -> dict[str, Array]:
    """Read the tensors of a file that ``torch.save`` wrote, by name.

    Parameters
    ----------
    path : str or path-like
        A .pt or .pth file of a state_dict, or of any dicts, lists and tuples that hold tensors, such as a checkpoint.

    Returns
    -------
    dict of str to array
        In the file's order. Nested keys and indices are joined by dots: ``{"model": {"lstm.weight_ih_l0": ...}}`` gives
        ``"model.lstm.weight_ih_l0"``, a tensor alone ``""``. What is no tensor is left out. dtypes are NumPy's of the
        same name, bfloat16 comes as float32. Tensors that share memory in PyTorch do so here.

    Raises
    ------
    ModelFormatError
        The file is broken, or holds more than tensors and containers, by the name of what it asks for (a whole module,
        a TorchScript archive, quantised or sparse tensors, NumPy's numbers). Nothing of it is ever run.
    OSError
        The file cannot be read.

    Notes
    -----
    The formats are those of ``torch/serialization.py``.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.pt")
    ...     torch.save({"model": torch.nn.Linear(2, 3).state_dict(), "epoch": 5}, path)
    ...     {name: array.shape for name, array in interop.pytorch.load_state_dict(path).items()}
    {'model.weight': (3, 2), 'model.bias': (3,)}
    """
    return {".".join(keys): array for keys, array, _ in _read(path)}


def layers(path: PathLike, skipped: dict[str, str] | None = None, *, batch_first: bool | None = None,
           dropout: float | None = None, nonlinearity: str | None = None, reset_after: bool | None = None,
           update: str | None = None, coupled_gates: bool | None = None, reverse: bool | None = None,
           activations: Sequence[Activation] | None = None, clip: float | None = None) -> dict[str, Layer]:
    """Read the recurrent layers of a file that ``torch.save`` wrote, with its weights.

    The options say what weights do not tell, and hold for every layer of the file that has such an option.

    Parameters
    ----------
    path : str or path-like
        A file as for `load_state_dict`.
    skipped : dict, optional
        If given, it takes name -> reason of what makes no layer. Without it the first of them is an error.
    batch_first : bool, optional
        Whether the layers take [N, T, I] instead of [T, N, I].
    dropout : float, optional
        Probability of dropout between stacked layers, in training.
    nonlinearity : {"tanh", "relu"}, optional
        Of every plain RNN.
    reset_after : bool, optional
        Of every GRU: where its reset gate acts. True, the default, is torch's.
    update : {"torch", "mirror"}, optional
        Of every GRU: which of the two mixes the update gate is.
    coupled_gates : bool, optional
        Of every LSTM: whether its input gate is 1 - f.
    reverse : bool, optional
        Whether the layers walk from the last step to the first.
    activations : sequence, optional
        Activation functions in ONNX's order f, g, h, of layers that are not torch's own.
    clip : float, optional
        Bound of the sums that activations are taken of.

    Returns
    -------
    dict of str to layer
        RNN, GRU or LSTM (of cells, too) by the module's name in the model: ``"encoder.lstm"``, or ``""`` where the
        model itself is the layer. The keys that hold a model within a checkpoint (``state_dict``, ``model_state``, ...)
        and what wrapping a model puts before its names (``module.``, ``_orig_mod.``) are left out, unless two layers
        would then have one name. An optimizer's state is never taken for layers.

    Raises
    ------
    ModelFormatError
        As `load_state_dict`; besides, parameters under one name do not make a layer.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> from fastrnn import interop
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(4, 8, 2), "head": torch.nn.Linear(8, 1)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "checkpoint.pt")
    ...     torch.save({"model_state": model.state_dict(), "epoch": 5}, path)
    ...     interop.pytorch.layers(path, batch_first=True)
    {'encoder': LSTM(4, 8, num_layers=2, batch_first=True)}
    """
    options = given_options({
        "batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity, "reset_after": reset_after,
        "update": update, "coupled_gates": coupled_gates, "reverse": reverse, "activations": activations, "clip": clip})
    groups, found = {}, []
    for keys, array, of_optimizer in _read(path):
        if keys and not of_optimizer:
            groups.setdefault(keys[:-1], {})[keys[-1]] = array
    for keys, tensors in groups.items():
        missed = None if skipped is None else {}
        try:
            layers_here = find_layers(tensors, {None: options}, missed)
        except ModelFormatError as error:
            raise ModelFormatError(f"{os.fspath(path)}: {error}") from error.__cause__
        found += [(keys, prefix, layer) for prefix, layer in layers_here.items()]
        if missed:
            skipped.update((_short(keys, prefix), reason) for prefix, reason in missed.items())
    for name_of in (_short, _full):
        named = {name_of(keys, prefix): layer for keys, prefix, layer in found}
        if len(named) == len(found):
            return named
    raise ModelFormatError(f"{os.fspath(path)}: two layers of one name among {', '.join(map(shown, named))}")


# Keys under which checkpoints hold a model, and those of an optimizer.
_MODEL_KEYS = {"model", "model_state", "model_state_dict", "model_dict", "state_dict", "state", "net", "network",
               "weights", "params", "parameters"}
_OPTIMIZER = re.compile(r"(?:^|_)optim(?:izers?)?(?:_|$)")
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod)(?:\.|$))+")     # of nn.DataParallel and torch.compile


def _short(keys, prefix):
    """The name of a layer within its model."""
    wrapper = _WRAPPERS.match(prefix)
    return _full([key for key in keys if key not in _MODEL_KEYS], prefix[wrapper.end():] if wrapper else prefix)


def _full(keys, prefix):
    return ".".join([*keys, prefix] if prefix else keys)


# ---- What the pickle may name ---------------------------------------------------------------------

class _Storage:
    """`length` elements from `start` on of what the file holds under `key`."""

    __slots__ = ("key", "dtype", "length", "start")

    def __init__(self, key, dtype, length, start=0):
        self.key, self.dtype, self.length, self.start = key, dtype, length, start

    @property
    def nbytes(self):
        return self.length * _DTYPES[self.dtype].itemsize


class _Tensor:
    """A view of a storage, checked to lie within it; offset and strides count elements of dtype."""

    __slots__ = ("storage", "dtype", "offset", "size", "stride", "flags")

    def __init__(self, storage, offset, size, stride, dtype=None, metadata=None):
        if type(storage) is not _Storage:
            raise ModelFormatError(f"a tensor made of a {type(storage).__name__}, expected a storage")
        if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > 64:
            raise ModelFormatError("a tensor's sizes and strides must be tuples of one length, 64 at most")
        if not all(map(_is_count, (offset, *size, *stride))):
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
    def itemsize(self):
        return _DTYPES[self.dtype].itemsize

    @property
    def nbytes(self):
        return math.prod(self.size) * self.itemsize


def _flags(metadata):
    """Of a tensor that is conjugated or negated when it is read."""
    if metadata is None:
        return ()
    if type(metadata) is not Pairs or any(flag not in ("conj", "neg") for flag in metadata[::2]):
        raise ModelFormatError("a tensor with properties other than conj and neg")
    return tuple(flag for flag, on in zip(metadata[::2], metadata[1::2], strict=True) if on is True)


def _is_count(number):
    return type(number) is int and 0 <= number < 1 << 63


def _rebuild_tensor(storage, offset, size, stride):
    return _Tensor(storage, offset, size, stride)


def _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata=None):
    return _Tensor(storage, offset, size, stride, metadata=metadata)


def _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
    if type(dtype) is not Name or dtype.value not in _DTYPES:
        raise ModelFormatError("a tensor without a dtype")
    return _Tensor(storage, offset, size, stride, dtype.value, metadata)


def _rebuild_parameter(data, requires_grad, hooks, state=None):
    if type(data) is not _Tensor:
        raise ModelFormatError(f"a parameter made of a {type(data).__name__}")
    return data


def _rebuild_from_type_v2(function, cls, arguments, state):
    if type(function) is not Name or function.call not in _TENSORS or type(arguments) is not tuple:
        raise ModelFormatError("a tensor with attributes must come of one of torch's own functions")
    return function.call(*arguments)


_TENSORS = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3, _rebuild_parameter)


def _ordered_dict(items=()):
    """Python 2 hands over a list of [key, value], Python 3 nothing: it sets them one by one."""
    pairs = Pairs()
    for key, value in items:
        pairs += (key, value)
    return pairs


def _encode(text, encoding):
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1") or type(text) is not str:
        raise ModelFormatError("bytes in another encoding than latin1")
    return text.encode("latin-1")


def _same(value=()):
    return value


def _opaque(*arguments):
    return None


_CALLS = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type_v2,
    "torch.Size": _same,
    "torch.device": _opaque,
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _same,
    "_codecs.encode": _encode,
    **{f"{module}.{name}": call for module in ("builtins", "__builtin__")
       for name, call in (("set", _same), ("frozenset", _same), ("bytearray", _opaque), ("complex", _opaque))},
}
_NAMES = {
    **{name: Name(name, call) for name, call in _CALLS.items()},
    **{name: Name(name, value=dtype) for kind, dtype in _STORAGES.items()
       for name in (f"torch.{kind}Storage", f"torch.cuda.{kind}Storage")},
    "torch.storage.UntypedStorage": Name("torch.storage.UntypedStorage", value="uint8"),
    **{f"torch.{dtype}": Name(f"torch.{dtype}", value=dtype) for dtype in _DTYPES},
    **{name: Name(name) for name in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")},
}
_REFUSED = {
    r"torch\.(cuda\.)?QU?Int\w+Storage|torch\._utils\._rebuild_qtensor":
        "quantised tensors, which have no like here: save the model before it is quantised",
    r"torch\._utils\._rebuild_sparse_\w+": "sparse tensors: save them .to_dense()",
    r"torch\._utils\._rebuild_meta_\w+": "tensors of the meta device, which have no data",
    r"torch\.(float|complex|u?int)\d\w*|torch\.\w+Storage": "numbers of a type that NumPy has not: save .float()",
    r"numpy\..*": "NumPy's numbers and arrays: save Python's numbers, or tensors",
    r"(torch\.nn\.modules|__main__)\..*": "part of a whole pickled module",
}


def _find(name):
    if name in _NAMES:
        return _NAMES[name]
    reason = next((f" ({reason})" for pattern, reason in _REFUSED.items() if re.fullmatch(pattern, name)), "")
    raise ModelFormatError(f"the pickle asks for {shown(name)}{reason}. Tensors and containers alone are read, and "
                           f"nothing is run; {_ADVICE}")


# ---- Files ------------------------------------------------------------------------------------------

_VERSIONS = [b"%d" % version for version in range(1, 11)]           # of zip archives; PyTorch 2 writes 3
_ORDERS = {b"little": "<", b"big": ">"}
_MAGIC, _PROTOCOL = 0x1950a86a20f9469cfc6c, 1001                    # of the older format
_CONTAINERS = (list, tuple, Pairs)


class _Pickle:
    """The object of a file: its pickle read, its storages noted."""

    def __init__(self, file):
        self.storages, start = {}, file.tell()
        self.value = pickles.load(file, _find, self._storage)
        self.left = 8 * (file.tell() - start)       # steps that `tensors` may take

    def _storage(self, identity):
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise ModelFormatError(f"a persistent id that is no storage; {_ADVICE}")
        _, kind, key, _, length, *view = identity
        if type(kind) is not Name or not kind.name.endswith("Storage") or type(key) is not str or not _is_count(length):
            raise ModelFormatError("a storage is told by a type, a key and a number of elements, not by "
                                   + ", ".join(map(shown, (kind, key, length))))
        storage = self.storages.setdefault(key, _Storage(key, kind.value, length))
        if (storage.dtype, storage.length) != (kind.value, length):
            raise ModelFormatError(f"storage {shown(key)} is of {storage.length} {storage.dtype} and of {length} "
                                   f"{kind.value}")
        if not view or view[0] is None:
            return storage
        if type(view[0]) is not tuple or len(view[0]) != 3 or not all(map(_is_count, view[0][1:])):
            raise ModelFormatError(f"storage {shown(key)}: a view is a key, an offset and a number of elements")
        _, start, part = view[0]
        if start + part > length:
            raise ModelFormatError(f"storage {shown(key)} has {length} elements, a view of it ends at {start + part}")
        return _Storage(key, kind.value, part, start)

    def tensors(self):
        """[(keys that lead to a tensor, the tensor, whether it is an optimizer's)], in order.

        Containers may hold each other without end, or be shared so often that no time would do: the steps are held to
        the size of the pickle, in which a tensor takes more than 100 bytes.
        """
        found, names = [], set()
        for keys, tensor, of_optimizer in self._walk(self.value):
            self._spend(100 + len(keys) + sum(map(len, keys)))
            name = ".".join(keys)
            if name in names:
                raise ModelFormatError(f"two tensors are named {shown(name)}")
            names.add(name)
            found.append((keys, tensor, of_optimizer))
        return found

    def _walk(self, value, keys=(), of_optimizer=False):
        if type(value) is _Tensor:
            yield keys, value, of_optimizer
        if type(value) not in _CONTAINERS:
            return
        self._spend(1 + len(value))
        if len(keys) > _DEEPEST:
            raise ModelFormatError(f"containers within containers, more than {_DEEPEST} deep")
        entries = enumerate(value)
        if type(value) is Pairs:
            of_optimizer = of_optimizer or any(type(key) is str and key == "param_groups" for key in value[::2])
            entries = zip(value[::2], value[1::2], strict=True)
        for key, child in entries:
            if type(child) is _Tensor or type(child) in _CONTAINERS:
                key = _text(key)
                yield from self._walk(child, (*keys, key), of_optimizer or bool(_OPTIMIZER.search(key)))

    def _spend(self, steps):
        self.left -= steps
        if self.left < 0:
            raise ModelFormatError("containers or tensors stand in too many places")


def _text(key):
    if isinstance(key, bytes):
        return key.decode(errors="replace")
    if not isinstance(key, (str, int, float, type(None))):
        raise ModelFormatError(f"tensors under a key that is a {type(key).__name__}, expected a str or a number")
    return str(key)


def _open_archive(data, path):
    """The pickle, a function that gives the bytes of a storage, their order, and how many bytes there are in all."""
    archive = Archive(data, path)
    folder = next(iter(archive), "").partition("/")[0] + "/"
    if folder + "constants.pkl" in archive:
        raise ModelFormatError("a TorchScript archive, which holds code: in PyTorch, "
                               "torch.save(torch.jit.load(path).state_dict(), other_path) writes what can be read here")
    if folder + "data.pkl" not in archive:
        raise ModelFormatError(f"a zip archive without {shown(folder + 'data.pkl')}: not of torch.save; {_ADVICE}")
    if archive.size(folder + "data.pkl") > len(data):
        raise ModelFormatError(f"data.pkl is said to be {archive.size(folder + 'data.pkl')} bytes, the archive is "
                               f"{len(data)}")
    if folder + "version" in archive and (version := archive.read(folder + "version").strip()) not in _VERSIONS:
        raise ModelFormatError(f"version {shown(version)} of the format, expected 1 to 10")
    order = archive.read(folder + "byteorder") if folder + "byteorder" in archive else b"little"
    if order not in _ORDERS:
        raise ModelFormatError(f"byteorder {shown(order)}, expected little or big")

    read = _Pickle(io.BytesIO(archive.read(folder + "data.pkl")))

    def fetch(key):
        name, storage = f"{folder}data/{key}", read.storages[key]
        if name in archive and archive.size(name) != storage.nbytes:
            raise ModelFormatError(f"{shown(name)} has {archive.size(name)} bytes, expected {storage.nbytes} of "
                                   f"{storage.length} {storage.dtype}")
        return archive.read(name)

    return read, fetch, _ORDERS[order], sum(map(archive.size, archive))


def _open_legacy(data):
    """As _open_archive."""
    if data[:1] not in (b"\x80", b"L"):         # a pickle of a long, by protocol 2 on or 1
        raise ModelFormatError(f"neither a zip archive nor the older format of torch.save; {_ADVICE}")
    file = io.BytesIO(data)
    magic = pickles.load(file, _find)
    if type(magic) is not int or magic != _MAGIC:
        raise ModelFormatError(f"a pickle, but not of torch.save: no magic number; {_ADVICE}")
    if (protocol := pickles.load(file, _find)) != _PROTOCOL:
        raise ModelFormatError(f"protocol {shown(protocol)}, expected {_PROTOCOL}")
    pickles.load(file, _find)                   # facts about the machine that wrote it
    read = _Pickle(file)
    keys, found = pickles.load(file, _find), {}
    if type(keys) is not list:
        raise ModelFormatError(f"expected a list of the storages' keys, got a {type(keys).__name__}")
    for key in keys:
        storage = read.storages.get(key) if type(key) is str else None
        if storage is None or key in found:
            raise ModelFormatError(f"storage {shown(key)}: " + ("given twice" if storage else "no tensor is of it"))
        count, left = int.from_bytes(file.read(8), "little"), len(data) - file.tell()
        if count != storage.length or storage.nbytes > left:
            raise ModelFormatError(f"storage {shown(key)}: expected {storage.length} {storage.dtype}, the file counts "
                                   f"{count} and has {left} bytes left")
        found[key] = memoryview(data)[file.tell():file.tell() + storage.nbytes]
        file.seek(storage.nbytes, 1)
    if file.tell() != len(data):
        raise ModelFormatError(f"{len(data) - file.tell()} bytes follow the last storage")

    def fetch(key):
        if key not in found:
            raise ModelFormatError(f"storage {shown(key)} is not in the file")
        return found[key]

    return read, fetch, "<", len(data)


def _read(path):
    """[(keys, array, whether an optimizer's)]."""
    data = read_bytes(path)
    with refusing(path):
        if data[257:262] == b"ustar":
            raise ModelFormatError("the tar format of PyTorch's first releases (2016): save it again with a later one")
        read, fetch, order, size = _open_archive(data, path) if data[:4] == b"PK\x03\x04" else _open_legacy(data)
        tensors = read.tensors()
        total = sum(tensor.nbytes for _, tensor, _ in tensors)
        if total > _SHARING * size + _SPARE:
            raise ModelFormatError(f"its tensors would take {total} bytes, its contents {size}: {_SHARING} times as "
                                   f"much and {_SPARE} bytes more are read")
        flat, arrays = {}, {}
        for _, tensor, _ in tensors:
            if tensor not in arrays:
                arrays[tensor] = _array(tensor, flat, fetch, order)
        return [(keys, arrays[tensor], of_optimizer) for keys, tensor, of_optimizer in tensors]


def _array(tensor, flat, fetch, order):
    """A view of its storage's elements, which are kept in `flat`."""
    storage, dtype = tensor.storage, tensor.dtype
    if 0 in tensor.size:
        return np.empty(tensor.size, _elements(b"", dtype, order).dtype)
    if (storage.key, dtype) not in flat:
        flat[storage.key, dtype] = _elements(fetch(storage.key), dtype, order)
    elements = flat[storage.key, dtype]
    array = np.ndarray(
        tensor.size, elements.dtype, elements, (storage.start + tensor.offset) * elements.itemsize,
        [step * elements.itemsize if n > 1 else 0 for n, step in zip(tensor.size, tensor.stride, strict=True)])
    if "conj" in tensor.flags:
        array = array.conj()
    return -array if "neg" in tensor.flags else array


def _elements(data, dtype, order):
    """A storage's bytes as an array of one dimension; a copy."""
    stored = _DTYPES[dtype]
    found = np.frombuffer(data, stored.newbyteorder(order), len(data) // stored.itemsize).astype(stored)
    if dtype == "bfloat16":                 # the upper half of a float32
        return (found.astype(np.uint32) << 16).view(np.float32)
    return found != 0 if dtype == "bool" else found
