"""Broken files whose containers are whole: what is inside is changed, then lengths and checksums are made to fit.

Bytes changed at random hardly ever get past a checksum or a length, so a zip archive is taken apart, one entry is
changed, and the archive is written again; likewise for .npy headers, safetensors, protobuf messages, texts of JSON,
the checksums of snapshots. Entries are changed in turn by what they are.

    changed = mutated(data, random.Random(0))

``raw`` is what changes bytes that have no structure, ``(bytes, most) -> bytes``: by default ``scrambled`` here, in
campaigns the mutator of libFuzzer, which knows what the readers compare with.
"""

import json
import struct
import zlib

import mutations

MOST_UNPACKED = 1 << 17             # bytes of one entry
WORDS = [0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
         (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
VALUES = [0, 1, -1, 2, 3, 6, 12, 1 << 31, 1 << 63, -(1 << 63), 10**30, 0.5, -0.0, 1e308, -1e308, 1e-320, True, False,
          None, "", "0", "tanh", "relu", "sigmoid", "linear", "hard_sigmoid", "GRU", "LSTM", "RNN", "Linear", "torch",
          "mirror", "float32", "float64", "int8", "bfloat16", "weight_hh_l0", "\0", "\x1b[2J", "\ud800", "x" * 300,
          [], {}, [[]], [0], [1, 1], ["tanh", None, None], {"same": 0}, {"float": "nan"}, {"array": ["float64", [1]]},
          {"tuple": []}]
DTYPES = ["<f4", "<f8", "<f2", ">f4", ">f8", "<i4", "<i8", "|i1", "|u1", "|b1", "<c8", "|O", "<U1", "|S3", "<M8[s]",
          "|V4", "<f16"]


def mutated(data, rng, raw=None, most=1 << 16):
    """A changed file, of the kind of container that `data` is; its bytes as such where it is none that is known."""
    raw = raw or (lambda part, limit: scrambled(part, rng, limit))
    if rng.random() < 0.15:
        return raw(data, most)
    change = _kind(data)
    try:
        result = change(data, rng, raw)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, struct.error, zlib.error):
        result = None           # a file that was broken before
    return result if result and len(result) <= most else raw(data, most)


def scrambled(data, rng, most):
    """A copy with bytes flipped, a number that lies, or a stretch left out, doubled, zeroed or moved."""
    how = rng.randrange(4)
    if how == 0 or len(data) < 4:
        changed = bytearray(data or b"\0")
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed[:most])
    at = rng.randrange(len(data))
    if how == 1:
        word = rng.choice(mutations.LIES)
        return (data[:at] + word + data[at + len(word):])[:most]
    end = min(len(data), at + rng.randint(1, 64))
    part, place = data[at:end], rng.randrange(len(data) + 1)
    return rng.choice((data[:at] + data[end:], data[:end] + part + data[end:],
                       data[:at] + bytes(len(part)) + data[end:],
                       data[:place] + part + data[place + len(part):], data[:at]))[:most]


def _kind(data):
    """The function that changes a file with such a beginning."""
    start = data[:64]
    if start[:2] == b"PK":
        return _archive
    if start[:6] == b"\x93NUMPY":
        return _npy
    if start[:4] == b"FRNN":
        return _snapshot
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= len(data):
        return _safetensors
    if start.lstrip()[:1] in (b"{", b"["):
        return _text
    if start[:4] == b"\x89HDF" or start[4:8] == b"TFL3" or start[:1] == b"\x80":
        return _words
    return _message


def _text(data, rng, raw):
    """A text of JSON, or what Python wrote like it."""
    return text_of(json_changed(json.loads(data), rng)) if rng.random() < 0.8 else raw(data, MOST_UNPACKED)


def _words(data, rng, raw):
    """Bytes in which whole numbers stand at places of their own size: one of them becomes another."""
    if rng.random() < 0.5:
        return raw(data, MOST_UNPACKED)
    size = rng.choice((1, 2, 4, 4, 8))
    at = rng.randrange(0, max(1, len(data) - size + 1), size)
    old = int.from_bytes(data[at:at + size], "little")
    new = rng.choice((old + 1, old - 1, old * 2, old + 4, old - 4, rng.choice(WORDS), -1, rng.randrange(len(data))))
    return data[:at] + (new % (1 << 8 * size)).to_bytes(size, "little") + data[at + size:]


# ---- Zip archives ------------------------------------------------------------------------------------

def unzipped(data):
    """[(name, whether it is deflated, contents)] of a zip archive, checked as little as may be."""
    end = data.rindex(b"PK\5\6")
    count, _, at = struct.unpack_from("<HII", data, end + 10)
    entries = []
    for _ in range(count):
        method, size, name, extra, comment, where = struct.unpack_from("<10xH8xI4xHHH8xI", data, at)
        start = where + 30 + sum(struct.unpack_from("<HH", data, where + 26))
        contents = data[start:start + size]
        if method == 8:
            contents = zlib.decompressobj(-15).decompress(contents, MOST_UNPACKED)
        entries.append((data[at + 46:at + 46 + name], method == 8, contents))
        at += 46 + name + extra + comment
    return entries


def zipped(entries):
    """The archive of such entries, each with its length and checksum."""
    parts, directory, at = [], [], 0
    for name, deflated, contents in entries:
        body = contents
        if deflated:
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            body = packer.compress(contents) + packer.flush()
        about = struct.pack("<HHHIIIHH", 8 * deflated, 0, 33, zlib.crc32(contents), len(body), len(contents), len(name),
                            0)          # 33: the first of January 1980
        local = b"PK\3\4\x14\0\0\0" + about + name + body
        directory.append(b"PK\1\2\x14\0\x14\0\0\0" + about + struct.pack("<HHHII", 0, 0, 0, 0, at) + name)
        parts.append(local)
        at += len(local)
    listing = b"".join(directory)
    return b"".join([*parts, listing, struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(entries), len(entries),
                                                  len(listing), at, 0)])


def _archive(data, rng, raw):
    entries = unzipped(data)
    if not entries:
        return None
    number = rng.randrange(len(entries))
    if rng.random() < 0.6:           # what tells what the others are, where there is such an entry
        telling = [n for n, (name, _, _) in enumerate(entries)
                   if name.endswith((b"fastrnn.npy", b".json", b".pkl", b".h5", b".py"))]
        number = rng.choice(telling) if telling else number
    name, deflated, contents = entries[number]
    how = rng.random()
    if how < 0.75:
        entries[number] = name, deflated, _entry(name, contents, rng, raw)
    elif how < 0.80:
        del entries[number]
    elif how < 0.85:
        entries[number] = name, not deflated, contents
    elif how < 0.90:
        other = rng.choice(entries)
        entries[number] = name, deflated, other[2]
    elif how < 0.95:
        entries[number] = raw(name, 64), deflated, contents
    else:
        entries.append((_renumbered(name, rng), deflated, contents))
    return zipped(entries)


def _entry(name, contents, rng, raw):
    """Other contents of an entry."""
    change = _kind(contents)
    if change is _message or change is _archive:
        change = _words if name.endswith(b".pkl") else None
    return raw(contents, MOST_UNPACKED) if change is None else change(contents, rng, raw) or contents


def _renumbered(name, rng):
    """A name with another number in it, or behind it."""
    digits = [n for n, byte in enumerate(name) if 48 <= byte < 58]
    if not digits:
        return name + b"1"
    at = rng.choice(digits)
    return name[:at] + b"%d" % rng.choice((0, 1, 2, 9, 10)) + name[at + 1:]


# ---- Arrays --------------------------------------------------------------------------------------------

def npy(header, body):
    """A .npy file of a header as it stands, a text, and of the numbers."""
    text = header.encode("latin-1", "replace") + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) & 65535) + text + body


def _npy(data, rng, raw):
    size = struct.unpack_from("<H", data, 8)[0]
    header, body = data[10:10 + size], data[10 + size:]
    how = rng.random()
    if body[:1] == b"{" and how < 0.9:              # fastrnn's configuration
        text = text_of(json_changed(json.loads(body), rng))
        return npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(text)},), }}", text)
    if how < 0.3:
        changed = raw(header, 256)
        return data[:8] + struct.pack("<H", len(changed)) + changed + body
    if how < 0.5:
        return data[:10 + size] + raw(body, MOST_UNPACKED)
    dtype, shape = rng.choice(DTYPES), [rng.choice((0, 1, 2, 3, 4, 6, 9, 12)) for _ in range(rng.randrange(4))]
    width, count = int("".join(c for c in dtype if c.isdigit()) or 8), 1
    for side in shape:
        count *= side
    length = count * width * (4 if "U" in dtype else 1)
    body = (body * (length // max(1, len(body)) + 1))[:length] if body else bytes(length)
    return npy(f"{{'descr': '{dtype}', 'fortran_order': {rng.random() < 0.2}, 'shape': {tuple(shape)}, }}", body)


def _safetensors(data, rng, raw):
    size = int.from_bytes(data[:8], "little")
    header, body = data[8:8 + size], data[8 + size:]
    how = rng.random()
    if how < 0.2:
        return data[:8 + size] + raw(body, MOST_UNPACKED)[:len(body)].ljust(len(body), b"\0")
    if how < 0.35:
        text = raw(header, MOST_UNPACKED)
    else:
        entries = json.loads(header)
        text = text_of(_tensors_changed(entries, rng) if how < 0.6 else json_changed(entries, rng))
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def _tensors_changed(entries, rng):
    """A header that still fits the bytes: with another name, shape or dtype of the same size, or other metadata."""
    names = [name for name in entries if name != "__metadata__"]
    name, how = rng.choice(names), rng.randrange(4)
    if how == 0 and "fastrnn" in entries.get("__metadata__", {}):
        entries["__metadata__"]["fastrnn"] = text_of(json_changed(json.loads(entries["__metadata__"]["fastrnn"]),
                                                                  rng)).decode()
    elif how == 1:
        return {(_renumbered(key.encode(), rng).decode() if key == name else key): value
                for key, value in entries.items()}
    elif how == 2:
        shape = entries[name]["shape"]
        entries[name]["shape"] = rng.choice((shape[::-1], [*shape, 1], [1, *shape], [2 * shape[0], *shape[1:]],
                                             [side for side in shape if side > 1]))
    else:
        sizes = {"F32": ("I32", "U32"), "F64": ("I64", "U64"), "F16": ("BF16", "I16"), "U8": ("BOOL", "I8", "F8_E4M3"),
                 "BF16": ("F16",), "I8": ("U8",)}
        entries[name]["dtype"] = rng.choice(sizes.get(entries[name]["dtype"], ("F32",)))
    return entries


# ---- Snapshots -------------------------------------------------------------------------------------------

def _snapshot(data, rng, raw):
    """Of a stream, a pool or a tree: changed, and its checksum with it."""
    body = data[:-4]
    if data[:8] == b"FRNNTREE":
        size = struct.unpack_from("<I", data, 12)[0]
        text, arrays = body[48:48 + size], body[48 + size:]
        if rng.random() < 0.7:
            text = text_of(json_changed(json.loads(text), rng))
        else:
            arrays = raw(arrays, MOST_UNPACKED)[:len(arrays)].ljust(len(arrays), b"\0")
        body = body[:12] + struct.pack("<I", len(text)) + body[16:48] + text + arrays
    else:
        body = _words(body, rng, raw)
        if data[:8] == b"FRNNPOOL" and rng.random() < 0.5:          # a part of it, of the same length
            at = data.find(b"FRNN", 8)
            if at > 0:
                part = _snapshot(data[at:-4], rng, raw)
                body = data[:at] + part[:len(data) - 4 - at]
    return body + struct.pack("<I", zlib.crc32(body))


# ---- JSON ------------------------------------------------------------------------------------------------

def text_of(value):
    """A value as JSON; not-a-numbers and lone halves of characters as Python writes them."""
    return json.dumps(value).encode()


def json_changed(value, rng, depth=0):
    """A value with one thing in it changed: replaced, left out, doubled, renamed, or moved."""
    if isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.7:       # JSON in a text
        return text_of(json_changed(json.loads(value), rng, depth + 1)).decode()
    if not isinstance(value, (dict, list)) or not value or depth > 40 or rng.random() < 0.03:
        return _other_value(value, rng)
    if rng.random() < 0.65 + 0.25 * (depth < 2):
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value[key] = json_changed(value[key], rng, depth + 1)
        return value
    return (_dict_changed if isinstance(value, dict) else _list_changed)(value, rng)


def _other_value(value, rng):
    if type(value) is int and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, 2 * value, -value, float(value), str(value), [value]))
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return rng.choice((value[:at] + value[at + 1:], value + value[at], value[:at] + "1" + value[at:], [value],
                           value.upper(), value.lower()))
    return rng.choice(VALUES)


def _dict_changed(value, rng):
    key, how = rng.choice(list(value)), rng.randrange(5)
    if how == 0:
        del value[key]
    elif how == 1:
        value[_other_name(key, rng)] = value.pop(key)
    elif how == 2:
        value[_other_name(key, rng)] = value[key]
    elif how == 3:
        value[key] = value[rng.choice(list(value))]
    else:
        value[key] = _other_value(value[key], rng)
    return value


def _other_name(key, rng):
    renumbered = _renumbered(key.encode(errors="replace"), rng).decode(errors="replace")
    return rng.choice((renumbered, key + "_", key[1:], "__class__", "__dict__", "dtype", "rng", "bias"))


def _list_changed(value, rng):
    number, how = rng.randrange(len(value)), rng.randrange(5)
    if how == 0:
        del value[number]
    elif how == 1:
        value.insert(number, value[number])
    elif how == 2:
        value[number] = rng.choice(value)
    elif how == 3:
        value += value[:64]
    else:
        value[number] = _other_value(value[number], rng)
    return value


# ---- Protobuf --------------------------------------------------------------------------------------------

def _varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _varint_bytes(number):
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    return bytes([*result, number])


def _fields(data):
    """[(tag, bytes of a field without its tag and length)] of a message; ValueError or IndexError if it is none."""
    at, result = 0, []
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, stop = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            stop = at + size
        elif kind in (1, 5):
            stop = at + (8 if kind == 1 else 4)
        else:
            raise ValueError("not a message")
        if stop > len(data) or not tag >> 3:
            raise ValueError("not a message")
        result.append((tag, data[at:stop]))
        at = stop
    return result


def _message(data, rng, raw, depth=0):
    """A protobuf message with one field changed at some depth, and the lengths of all around it."""
    fields = _fields(data)
    if not fields:
        return None
    number = rng.randrange(len(fields))
    tag, body = fields[number]
    how = rng.random()
    if tag & 7 == 2 and how < (0.9 if depth < 2 else 0.75):
        fields[number] = tag, _bytes_changed(body, rng, raw, depth)
    elif tag & 7 != 2 and how < 0.75:
        fields[number] = tag, (_varint_bytes(rng.choice(WORDS)) if tag & 7 == 0 else
                               raw(body, len(body)).ljust(len(body), b"\0"))
    elif how < 0.8:
        del fields[number]
    elif how < 0.85:
        fields.insert(number, fields[number])
    elif how < 0.9:
        fields.insert(rng.randrange(len(fields)), fields.pop(number))
    elif how < 0.95:
        fields[number] = tag, rng.choice(fields)[1] if tag & 7 == 2 else body
    else:
        fields[number] = rng.randrange(1, 32) << 3 | tag & 7, body
    return b"".join(_varint_bytes(tag) + (_varint_bytes(len(body)) if tag & 7 == 2 else b"") + body
                    for tag, body in fields)


def _bytes_changed(body, rng, raw, depth):
    """The contents of a field: a message of its own where they can be one, else bytes."""
    if len(body) > 2 and depth < 12 and rng.random() < 0.9:
        try:
            return _message(body, rng, raw, depth + 1) or body
        except (ValueError, IndexError):
            pass
    return raw(body, max(16, 2 * len(body)))
