"""Keras files laid out as its versions wrote them, by h5py alone."""

import io
import json
import zipfile

import h5py
import numpy as np
from keras_files import H, I

from fastrnn.interop import keras

PARTS = ("kernel", "recurrent_kernel", "bias")


def drawn(kind, rng, columns=I, reset_after=False):
    """kernel, recurrent kernel, bias."""
    G = keras.GATES[kind]
    return [rng.uniform(-0.8, 0.8, shape).astype(np.float32)
            for shape in ((columns, G * H), (H, G * H), (2, G * H) if reset_after else (G * H,))]


def named(layer, arrays, style="{layer}/{part}:0", **words):
    """Weight's name -> array."""
    return {style.format(layer=layer, part=part, **words): a for part, a in zip(PARTS, arrays, strict=True)}


def write_named(path, layers, *, config=None, version="2.2.4", group="model_weights", as_text=False, split=1):
    """layers: name -> {weight's name: array}, as Keras before 3 and its legacy writer lay them out."""
    text = (lambda value: value) if as_text else (lambda value: value.encode())
    with h5py.File(path, "w") as file:
        top = file.create_group(group) if group else file
        if version:
            for where in {file, top} if as_text else [top]:
                where.attrs["keras_version"] = text(version)
        if config is not None:
            file.attrs["model_config"] = text(json.dumps(config))

        def write_names(where, key, names):
            names = [text(name) for name in names]
            if split > 1:
                for i, part in enumerate(np.array_split(np.array(names, object), split)):
                    where.attrs[f"{key}{i}"] = part.tolist()
            else:
                where.attrs[key] = names
        write_names(top, "layer_names", layers)
        for name, weights in layers.items():
            inner = top.create_group(name)
            write_names(inner, "weight_names", weights)
            for key, value in weights.items():
                inner[key] = value


def sequential(*entries, as_list=True):
    """A model_config: a list of layers, before Keras 2.2.3."""
    entries = [{"class_name": cls, "config": {"name": name, **config}} for name, cls, config in entries]
    return {"class_name": "Sequential", "config": entries if as_list else {"name": "sequential", "layers": entries}}


def write_zip(path, config, weights, version="3.5.0", compression=zipfile.ZIP_STORED):
    """A .keras file. weights: path of a cell -> its arrays; or the bytes of an HDF5 file."""
    if not isinstance(weights, bytes):
        file = io.BytesIO()
        with h5py.File(file, "w") as h5:
            for place, arrays in weights.items():
                for i, a in enumerate(arrays):
                    h5[f"{place}/vars/{i}"] = a
        weights = file.getvalue()
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
