"""Makes versions/TOOL-VERSION.npz: files of one version of a framework, for test_versions.py.

    python tests/interop/files/versions.py keras|tf.keras|tf2onnx|tflite|torch|safetensors|onnx [FOLDER]

It is run in an environment that has the version, on the Python that it is for: it runs on Python 3.6 and later. Layers
with random weights are given a random input. Each case stands in the archive as NAME.file (bytes), NAME.x and NAME.y
(the input, and what the framework gives for it). What a version does not have is left out and printed.
"""

import os
import sys
import tempfile
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np

warnings.simplefilter("ignore")
I, H, T, N = 3, 4, 6, 2
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "versions")


# ---- Keras ----------------------------------------------------------------------------------------

def keras_models(K):
    """Name -> a function that makes the layers of a model of [N, T, I]; the first of them takes `shape`."""
    L, S, shape = K.layers, {"return_sequences": True}, {"input_shape": (T, I)}
    return {
        "lstm": lambda: [L.LSTM(H, **S, **shape)],
        "gru": lambda: [L.GRU(H, **S, **shape)],
        "rnn": lambda: [L.SimpleRNN(H, **S, **shape)],
        "lstm_last": lambda: [L.LSTM(H, **shape)],
        "lstm_sigmoid": lambda: [L.LSTM(H, recurrent_activation="sigmoid", **S, **shape)],
        "lstm_nobias": lambda: [L.LSTM(H, use_bias=False, **S, **shape)],
        "lstm_relu": lambda: [L.LSTM(H, activation="relu", **S, **shape)],
        "gru_after": lambda: [L.GRU(H, reset_after=True, **S, **shape)],
        "gru_before": lambda: [L.GRU(H, reset_after=False, **S, **shape)],
        "lstm_back": lambda: [L.LSTM(H, go_backwards=True, **S, **shape)],
        "lstm_stateful": lambda: [L.LSTM(H, stateful=True, batch_input_shape=(N, T, I), **S)],
        "stack": lambda: [L.LSTM(H, **S, **shape), L.GRU(5, **S), L.SimpleRNN(2, **S)],
        "bi_concat": lambda: [L.Bidirectional(L.LSTM(H, **S), **shape)],
        "bi_sum": lambda: [L.Bidirectional(L.GRU(H, **S), merge_mode="sum", **shape)],
        "bi_mul": lambda: [L.Bidirectional(L.LSTM(H, **S), merge_mode="mul", **shape)],
        "bi_ave": lambda: [L.Bidirectional(L.SimpleRNN(H, **S), merge_mode="ave", **shape)],
        "cells": lambda: [L.RNN([L.LSTMCell(H), L.LSTMCell(H)], **S, **shape)],
    }


def cudnn_files(K, rng):
    """Weights of cuDNN's layers, which run on GPUs alone: Keras itself turns them into those of plain layers."""
    import h5py
    from keras.engine import saving
    for name, kind, options in (("cudnn_lstm", "LSTM", {}), ("cudnn_gru", "GRU", {"reset_after": True}),
                                ("bi_cudnn", "LSTM", {})):
        layer = getattr(K.layers, "CuDNN" + kind)(H, return_sequences=True)
        plain = getattr(K.layers, kind)(H, recurrent_activation="sigmoid", return_sequences=True, **options)
        if name.startswith("bi"):
            layer, plain = K.layers.Bidirectional(layer), K.layers.Bidirectional(plain)
        for each in [layer.forward_layer, layer.backward_layer] if name.startswith("bi") else [layer]:
            with K.backend.name_scope(each.name):
                each.build((None, T, I))
        shapes = [w.shape for w in K.backend.batch_get_value(layer.weights)]
        weights = [rng.uniform(-1, 1, shape).astype("f4") for shape in shapes]
        layer.set_weights(weights)
        with tempfile.TemporaryDirectory() as folder:
            with h5py.File(os.path.join(folder, "m.h5"), "w") as file:
                saving.save_weights_to_hdf5_group(file, [layer])
            with open(os.path.join(folder, "m.h5"), "rb") as file:
                data = file.read()
        model = K.models.Sequential([K.layers.InputLayer((T, I)), plain])
        model.set_weights(saving.preprocess_weights_for_loading(plain, weights, K.__version__))
        x = rng.standard_normal((N, T, I)).astype("f4")
        yield name + ".weights.h5", data, x, model.predict(x)


def keras_files(K, rng):
    """Yields (name, bytes, x, y): whole models, and weights alone, in every format that the version writes."""
    newer = int(K.__version__.split(".")[0]) >= 3
    alone = ("lstm", "gru", "rnn", "stack", "bi_concat", "bi_sum", "cells")      # weights alone, too
    for name, make in keras_models(K).items():
        try:
            model = sequential(K, make(), newer)
        except Exception as error:
            print(f"{name}: {str(error)[:100]}")
            continue
        model.set_weights([rng.uniform(-1, 1, w.shape).astype("f4") for w in model.get_weights()])
        x = rng.standard_normal((N, T, I)).astype("f4")
        y = np.asarray(model.predict(x))
        endings = [".h5" if not newer or name == "stack" else "", ".keras", ".weights.h5" if name in alone else ""]
        for ending in filter(None, endings):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "m" + ending)
                try:
                    (model.save_weights if "weights" in ending else model.save)(path)
                except Exception as error:
                    print(f"{name}{ending}: {str(error)[:100]}")
                    continue
                if not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    data = file.read()
                if ending == ".keras" and data[:4] != b"PK\3\4":       # older versions write HDF5 whatever the name is
                    continue
                yield name + ending, data, x, y
    if K.__name__ == "keras" and K.__version__[:3] in ("2.2", "2.3"):
        yield from cudnn_files(K, rng)


def sequential(K, layers, newer):
    model = K.models.Sequential()
    for layer in layers:
        model.add(layer)
    return model


# ---- What converters make of Keras' layers ----------------------------------------------------------

CONVERTED = ("lstm", "gru", "rnn", "lstm_last", "lstm_relu", "gru_before", "lstm_back", "stack", "bi_concat")


def converted_files(tf, rng, write, **shape):
    """Yields (name, bytes, x, y) of Keras' models as a converter writes them."""
    for name in CONVERTED:
        model = sequential(tf.keras, [tf.keras.Input((T, I), **shape)] + [
            layer for layer in keras_models(tf.keras)[name]()], True)
        model.set_weights([rng.uniform(-1, 1, w.shape).astype("f4") for w in model.get_weights()])
        x = rng.standard_normal((N, T, I)).astype("f4")
        try:
            data = write(model)
        except Exception as error:
            print(f"{name}: {str(error)[:200]!r}")
            continue
        yield name, data, x, np.asarray(model(x))


def tf2onnx_write(tf, tf2onnx):
    def write(model):
        signature = [tf.TensorSpec((None, T, I), tf.float32, name="x")]
        function = tf.function(lambda x: model(x), input_signature=signature)
        return tf2onnx.convert.from_function(function, input_signature=signature)[0].SerializeToString()
    return write


# ---- PyTorch --------------------------------------------------------------------------------------

def torch_modules(torch):
    """Name -> a module of [T, N, I], or with batch_first of [N, T, I]."""
    nn = torch.nn
    return {
        "lstm": lambda: nn.LSTM(I, H),
        "gru": lambda: nn.GRU(I, H),
        "rnn": lambda: nn.RNN(I, H, nonlinearity="relu"),
        "lstm_stack": lambda: nn.LSTM(I, H, 2, bidirectional=True, batch_first=True),
        "gru_nobias": lambda: nn.GRU(I, H, bias=False),
        "lstm_proj": lambda: nn.LSTM(I, H, proj_size=2),
        "gru_norm": lambda: nn.utils.weight_norm(nn.GRU(I, H), "weight_hh_l0"),
    }


def torch_ways(torch, module, x):
    """Ending -> a function that writes a module, or what it holds, to a path: what any of the versions can do."""
    optimizer = torch.optim.Adam(module.parameters())
    module(x)[0].sum().backward()
    optimizer.step()
    module.zero_grad()
    checkpoint = {"epoch": 3, "model": module.state_dict(), "optimizer": optimizer.state_dict()}
    whole = {} if torch.__version__[0] == "1" else {"external_data": False}
    return {
        ".pt": lambda path: torch.save(module.state_dict(), path),
        ".legacy.pt": lambda path: torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False),
        ".ckpt": lambda path: torch.save(checkpoint, path),
        ".module.pt": lambda path: torch.save(module, path),
        ".traced.pt": lambda path: torch.jit.save(torch.jit.trace(module, x), path),
        ".scripted.pt": lambda path: torch.jit.save(torch.jit.script(module), path),
        ".pt2": lambda path: torch.export.save(torch.export.export(module, (x,)), path),
        ".onnx": lambda path: torch.onnx.export(module, (x,), path, **whole),
        ".traced.onnx": lambda path: torch.onnx.export(module, (x,), path, dynamo=False),
    }


def torch_files(torch, rng):
    """Yields (name, bytes, x, y): every way in which the version keeps or exports a module."""
    for name, make in torch_modules(torch).items():
        torch.manual_seed(0)
        try:
            module = make()
            shape = (N, T, I) if name == "lstm_stack" else (T, N, I)
            x = torch.from_numpy(rng.standard_normal(shape).astype("f4"))
            ways = torch_ways(torch, module, x)
        except Exception as error:
            print(f"{name}: {str(error)[:100]}")
            continue
        if name not in ("lstm", "gru", "rnn"):
            ways = {ending: ways[ending] for ending in (".pt", ".module.pt", ".traced.pt", ".onnx")}
        with torch.no_grad():
            y = module.eval()(x)[0].numpy()
        for ending, write in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "m" + ending)
                try:
                    write(path)
                except Exception as error:
                    print(f"{name}{ending}: {str(error)[:100]!r}")
                    continue
                with open(path, "rb") as file:
                    yield name + ending, file.read(), x.numpy(), y


# ---- safetensors and ONNX -------------------------------------------------------------------------------

def safetensors_files(rng):
    """Yields (name, bytes, x, y) of an RNN of the equation h' = tanh(W x + R h + b), computed here."""
    from safetensors.numpy import save
    for name, metadata in (("plain", None), ("metadata", {"format": "pt"})):
        arrays = {part: rng.uniform(-1, 1, shape).astype("f4") for part, shape in (
            ("encoder.weight_ih_l0", (H, I)), ("encoder.weight_hh_l0", (H, H)), ("encoder.bias_ih_l0", (H,)),
            ("encoder.bias_hh_l0", (H,)), ("head.weight", (2, H)))}
        x, h, steps = rng.standard_normal((T, N, I)).astype("f4"), np.zeros((N, H)), []
        W, R, b, c = [arrays[part] for part in list(arrays)[:4]]
        for x_t in x:
            h = np.tanh(x_t @ W.T + h @ R.T + b + c)
            steps.append(h)
        yield name, save(arrays, metadata), x, np.array(steps, "f4")


def onnx_files(onnx, onnxruntime, rng):
    """Yields (operator_opset_kind, bytes, x, y): the operators in the opsets that ONNX Runtime of that age takes."""
    from onnx import TensorProto, helper, numpy_helper
    newest = min(onnx.defs.onnx_opset_version(), 21)
    for operator, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        for opset in sorted({7, 11, 14, newest}):
            for kind, options in (("forward", {}), ("reverse", {"clip": 0.7}), ("bidirectional", {})):
                D = 2 if kind == "bidirectional" else 1
                arrays = {"W": (D, gates * H, I), "R": (D, gates * H, H), "B": (D, 2 * gates * H)}
                arrays = {name: rng.uniform(-1, 1, shape).astype("f4") for name, shape in arrays.items()}
                more = {"linear_before_reset": opset % 2} if operator == "GRU" else {}
                node = helper.make_node(operator, ["X", "W", "R", "B"], ["Y"], "node", hidden_size=H, direction=kind,
                                        **options, **more)
                graph = helper.make_graph(
                    [node], "graph", [helper.make_tensor_value_info("X", TensorProto.FLOAT, (T, N, I))],
                    [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (T, D, N, H))],
                    [numpy_helper.from_array(a, name) for name, a in arrays.items()])
                model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
                model.ir_version = min(model.ir_version, 9)
                data, x = model.SerializeToString(), rng.standard_normal((T, N, I)).astype("f4")
                session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
                y, = session.run(None, {"X": x})
                yield f"{operator}_{opset}_{kind}", data, x, y.swapaxes(1, 2).reshape(T, N, -1)


# ---- All --------------------------------------------------------------------------------------------

def cases(tool, rng):
    """(version, what yields the cases) of a tool."""
    if tool == "keras":
        import keras
        return keras.__version__, keras_files(keras, rng)
    if tool == "tf.keras":
        import tensorflow
        return tensorflow.__version__, keras_files(tensorflow.keras, rng)
    if tool in ("tf2onnx", "tflite"):
        import tensorflow as tf
        if tool == "tflite":
            return tf.__version__, converted_files(
                tf, rng, lambda model: tf.lite.TFLiteConverter.from_keras_model(model).convert(), batch_size=N)
        import tf2onnx
        return tf2onnx.__version__, converted_files(tf, rng, tf2onnx_write(tf, tf2onnx))
    if tool == "safetensors":
        import safetensors
        return safetensors.__version__, safetensors_files(rng)
    if tool == "onnx":
        import onnx
        import onnxruntime
        return onnx.__version__, onnx_files(onnx, onnxruntime, rng)
    if tool == "torch":
        import torch
        return torch.__version__.partition("+")[0], torch_files(torch, rng)
    raise SystemExit(__doc__)


def main(tool, folder=FOLDER):
    version, made = cases(tool, np.random.RandomState(0))
    arrays = {}
    for name, data, x, y in made:
        arrays.update({name + ".file": np.frombuffer(data, np.uint8), name + ".x": x, name + ".y": y})
    path = os.path.join(folder, f"{tool}-{version}.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(arrays) // 3} files, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
