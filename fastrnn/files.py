"""fastrnn's own model files, and what every reader of files shares: careful reading, one kind of error.

A file is read whole, and only a regular one, so that memory is bounded by its size; what is found in it is believed
only as far as it was checked. Nothing in it is ever run.
"""

import collections
import contextlib
import inspect
import io
import json
import math
import os
import stat

import numpy as np

# A compressed entry may grow to this many times the size of its archive (weights hardly compress; zeros do).
EXPANSION = 64


class ModelFormatError(ValueError):
    """A model file that is broken, hostile, or not what it claims to be.

    >>> issubclass(ModelFormatError, ValueError)
    True
    """


# ---- fastrnn's own files ------------------------------------------------------------------------

VERSION = 1


def save(model, path):
    """Writes a layer, a cell or a whole Sequential to a file, from which ``load`` makes the same one, to the bit.

    Parameters
    ----------
    model : layer, cell, Linear, Embedding or Sequential
    path : str or path-like
        The ending tells the format: ``.npz`` (NumPy alone) or ``.safetensors`` (``pip install fastrnn[safetensors]``).
        A file that is there is replaced at once, when all is written; nobody ever sees a half.

    Raises
    ------
    TypeError
        None of these; a class derived from one, which ``load`` would not know.
    ValueError
        Another ending.
    OSError
        The file cannot be written.

    Notes
    -----
    The arrays bear the names of ``state_dict()``. The configuration is a JSON object: "version" 1, "class",
    "input_size", "hidden_size", every option of the class by its name, "dtype" as NumPy spells it, "activations" as
    [name, alpha, beta] each. A Sequential has "modules", a list of such objects, and arrays "0.weight_ih_l0", ... In a
    .npz the object is the array "fastrnn", its UTF-8 bytes; in a .safetensors file the metadata "fastrnn".

    >>> import os, tempfile, fastrnn
    >>> layer = fastrnn.GRU(2, 3, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(layer, os.path.join(folder, "gru.npz"))
    ...     load(os.path.join(folder, "gru.npz"))
    GRU(2, 3)
    """
    ending = _ending(path)
    text, tensors = json.dumps(configuration(model)), dict(model.parameters)
    if ending == ".npz":
        with replacing(path) as file:
            np.savez(file, **tensors, fastrnn=np.frombuffer(text.encode(), np.uint8))
    else:
        data = _safetensors().numpy.save(tensors, metadata={"fastrnn": text})
        with replacing(path) as file:
            file.write(data)


def load(path):
    """The model that ``save`` wrote; files of others are for ``fastrnn.interop``.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    layer, cell, Linear, Embedding or Sequential
        Of the class that was saved, with its options and, to the bit, its parameters.

    Raises
    ------
    ValueError
        An ending that is neither .npz nor .safetensors.
    ModelFormatError
        A file that is broken, or not fastrnn's.
    OSError
        The file cannot be read.
    ImportError
        A .safetensors file, and the package is missing.

    >>> import os, tempfile, fastrnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "cell.npz")
    ...     fastrnn.LSTMCell(2, 3, peephole=True).save(path)
    ...     load(path)
    LSTMCell(2, 3, peephole=True)
    """
    read = read_npz if _ending(path) == ".npz" else read_safetensors
    tensors, found = read(path)
    if found is None:
        raise ModelFormatError(f"{os.fsdecode(path)}: not written by fastrnn; fastrnn.interop.layers reads what others "
                               "write")
    return build(found, tensors, path)


def _classes():
    from . import cells, layers, modules  # here, because they know this module
    return {cls.__name__: cls for cls in (layers.RNN, layers.GRU, layers.LSTM,
                                          cells.RNNCell, cells.GRUCell, cells.LSTMCell,
                                          modules.Linear, modules.Embedding, modules.Sequential)}


def configuration(model):
    """What the JSON in a file says of a model: its class, and every argument of its constructor but rng."""
    name = type(model).__name__
    if _classes().get(name) is not type(model):
        raise TypeError(f"model: expected one of {', '.join(_classes())}, got {type(model).__qualname__}")
    if name == "Sequential":
        return {"version": VERSION, "class": name, "modules": [configuration(module) for module in model.modules]}
    arguments = {argument.name: None for cls in reversed(type(model).__mro__) if "__init__" in vars(cls)
                 for argument in inspect.signature(cls.__init__).parameters.values()
                 if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)}
    layer = getattr(model, "_layer", model)         # a cell's options are those of its layer
    return {"version": VERSION, "class": name,
            **{key: getattr(layer, key) for key in arguments if key not in ("self", "rng")}, "dtype": layer.dtype.name}


def build(found, tensors, path, **options):
    """The model of a configuration and its parameters; options stand above what the configuration says."""
    from .parameters import UNDRAWN
    with refusing(path):
        classes, name = _classes(), found.get("class")
        if name not in classes:
            raise ModelFormatError(f"class: expected one of {', '.join(classes)}, got {name!r:.200}")
        if name == "Sequential":
            return classes[name](*(build(one, part, path) for one, part in members(found, tensors)))
        options = {**found, **options}
        del options["class"], options["version"]
        if isinstance(options.get("num_layers"), int) and options["num_layers"] > len(tensors):
            raise ModelFormatError(f"num_layers {options['num_layers']}, but {len(tensors)} arrays")
        if options.get("dtype") not in ("float32", "float64"):          # NumPy takes far more for a dtype
            raise ModelFormatError(f"dtype: expected float32 or float64, got {options.get('dtype')!r:.200}")
        model = classes[name](**options, rng=UNDRAWN)
        model.load_state_dict(tensors)
        return model


def members(found, tensors):
    """A Sequential's configuration taken apart: of each module its configuration, and the tensors "i.name" by name."""
    modules = found.get("modules")
    if found.keys() != {"version", "class", "modules"} or not isinstance(modules, list):
        raise ModelFormatError(f"a Sequential: expected version, class and a list of modules, got {found!r:.200}")
    for one in modules:
        if not isinstance(one, dict) or one.get("version") != VERSION:
            raise ModelFormatError(f"modules: expected configurations of version {VERSION}, got {one!r:.200}")
    parts = {str(i): {} for i in range(len(modules))}
    for name, value in tensors.items():
        i, _, rest = name.partition(".")
        if i not in parts:
            raise ModelFormatError(f"unknown key {name!r} for {len(modules)} modules")
        parts[i][rest] = value
    return list(zip(modules, parts.values()))


def _ending(path):
    ending = os.path.splitext(os.fsdecode(path))[1].lower()
    if ending not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name that ends in .npz or .safetensors, got {os.fsdecode(path)!r}")
    return ending


# ---- Careful reading ----------------------------------------------------------------------------

def read_bytes(path, offset=0, length=None):
    """The contents of a regular file, or `length` bytes from `offset`; OSError where there is none."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError(f"{os.fsdecode(path)}: not a regular file")
        file.seek(offset)
        return file.read(status.st_size if length is None else length)


@contextlib.contextmanager
def refusing(path):
    """What goes wrong within is the file's fault: a ModelFormatError that names it. OSErrors pass."""
    path = os.fsdecode(path)
    try:
        yield
    except (OSError, MemoryError):
        raise
    except ModelFormatError as error:
        if path in str(error):
            raise
        raise ModelFormatError(f"{path}: {error}") from error.__cause__
    except Exception as error:
        raise ModelFormatError(f"{path}: {type(error).__name__}: {error}") from error


class Archive:
    """A zip archive in memory: names, and the contents of an entry, never more than EXPANSION times the archive."""

    def __init__(self, data, path):
        import zipfile  # here, for an import of fastrnn without it is quicker
        self.path = os.fsdecode(path)
        with refusing(path):
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._entries = {}
            for entry in self._zip.infolist():
                if entry.filename in self._entries:
                    raise ModelFormatError(f"{self.path}: {entry.filename!r} is in the archive twice")
                # zipfile unpacks the others without a bound
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ModelFormatError(f"{self.path}: {entry.filename!r} is neither stored nor deflated")
                self._entries[entry.filename] = entry
        reached = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            if entry.header_offset < reached:
                raise ModelFormatError(f"{self.path}: {entry.filename!r} overlaps another entry of the archive")
            reached = entry.header_offset + 30 + entry.compress_size       # 30: a header, without its name
        if reached > self._zip.start_dir:
            raise ModelFormatError(f"{self.path}: an entry overlaps the archive's directory")
        total = sum(entry.file_size for entry in self._entries.values())
        if total > EXPANSION * len(data):
            raise ModelFormatError(f"{self.path}: an archive of {len(data)} bytes claims to hold {total}; at most "
                                   f"{EXPANSION} times its size is read")

    def __iter__(self):
        return iter(self._entries)

    def __contains__(self, name):
        return name in self._entries

    def size(self, name):
        return self._entries[name].file_size

    def read(self, name):
        """The contents of an entry, checked against its size and CRC."""
        if name not in self._entries:
            raise ModelFormatError(f"{self.path}: the archive has no {name!r}")
        entry = self._entries[name]
        with refusing(self.path), self._zip.open(entry) as file:
            data = file.read(entry.file_size + 1)
            if len(data) != entry.file_size:
                raise ModelFormatError(f"{self.path}: {name!r} has {len(data)} bytes, its header says "
                                       f"{entry.file_size}")
            return data


def parse_json(data):
    """What a JSON text says. A name twice in one object, NaN or Infinity, and nesting without end are errors."""
    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            name = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ModelFormatError(f"{name!r} stands twice in a JSON object")
        return found

    def refuse(constant):
        raise ModelFormatError(f"{constant} is no JSON")

    return json.loads(data, object_pairs_hook=unique, parse_constant=refuse)


def parse_npy(data, name):
    """The array of a .npy file's contents: numbers alone, as many bytes as dtype and shape ask for."""
    file = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in headers:
        raise ModelFormatError(f"{name!r}: .npy version {version} is of structured arrays, expected 1.0 or 2.0")
    try:
        shape, fortran, dtype = headers[version](file)
    except MemoryError:             # how Python's parser refuses nesting without end
        raise ModelFormatError(f"{name!r}: no .npy header") from None
    if dtype.kind not in "fiub":
        raise ModelFormatError(f"{name!r}: expected an array of numbers, got one of "
                               f"{'pickled objects, which are never read' if dtype.hasobject else dtype}")
    due, there = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if due != there:
        raise ModelFormatError(f"{name!r}: {dtype} {shape} takes {due} bytes, {there} are there")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


# ---- Named arrays ---------------------------------------------------------------------------------

def read_npz(path, wanted=None):
    """Name -> array of a .npz, of those names for which wanted(name) is true; and the configuration, if fastrnn's own.

    Other entries are not looked at.
    """
    archive = Archive(read_bytes(path), path)
    with refusing(path):
        names = [entry.removesuffix(".npy") for entry in archive if entry.endswith(".npy")]
        tensors = {name: parse_npy(archive.read(name + ".npy"), name) for name in names
                   if name == "fastrnn" or wanted is None or wanted(name)}
        text = tensors.pop("fastrnn", None)
        return tensors, None if text is None else parse_configuration(text.tobytes())


def parse_configuration(text):
    """The JSON that `configuration` stands in, checked as far as its version."""
    found = parse_json(text)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ModelFormatError(f"expected a configuration of version {VERSION}, got {found!r:.200}")
    return found


_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
                "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def read_safetensors(path):
    """Name -> array of a .safetensors file; and the configuration, if fastrnn's own.

    bfloat16, which NumPy does not know, comes as float32; of other types that it has not, the bytes come, in a field of
    the type's name.
    """
    deserialize = _safetensors().deserialize
    data = read_bytes(path)
    with refusing(path):
        # Lengths, offsets, overlaps and coverage are checked by the library; that no name stands twice is not.
        found = dict(deserialize(data))
        header = parse_json(data[8:8 + int.from_bytes(data[:8], "little")])
        text = (header.pop("__metadata__", None) or {}).get("fastrnn")
        tensors = {name: _tensor(**found[name]) for name in header}         # in the file's order
        return tensors, None if text is None else parse_configuration(text)


def _tensor(data, dtype, shape):
    if dtype == "BF16":             # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if dtype not in _SAFETENSORS:
        a = np.frombuffer(data, [(dtype, "u1")])
        return a.reshape(shape) if a.size == math.prod(shape) else a
    return np.frombuffer(data, _SAFETENSORS[dtype]).reshape(shape)


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("safetensors files need the package safetensors: pip install fastrnn[safetensors]") from error
    return safetensors


# ---- Writing --------------------------------------------------------------------------------------

@contextlib.contextmanager
def replacing(path, draft=None):
    """A file to write to that becomes `path` on a regular end; until then, and otherwise, `path` stays as it was.

    draft: the name it has until then, which one writer alone uses: if it is killed, the next writes over what it left.
    Without it every writer has a name of its own.
    """
    path = os.path.realpath(os.fsdecode(path))      # through a symbolic link to what it points to
    mode = "xb" if draft is None else "wb"
    draft = os.path.join(os.path.dirname(path), f".fastrnn-{os.urandom(8).hex()}.tmp" if draft is None else draft)
    try:
        with open(draft, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):          # who may read the file that is replaced may read the new one
            os.chmod(draft, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    _sync_folder(os.path.dirname(path))


def _sync_folder(path):
    """Has the system write a folder's entries, without which a new name may be lost with the power."""
    with contextlib.suppress(OSError):      # Windows opens no folders, some file systems sync none
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
