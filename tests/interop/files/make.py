"""Makes tf2onnx.npz and tflite.npz, the goldens of test_onnx_loops.py and test_tflite.py, with the real tools.

    pip install tensorflow==2.21 tf_keras==2.21 keras==3.15.1 tf2onnx==1.17       # in an environment of its own
    python tests/interop/files/make.py FOLDER

A layer of Keras with random weights is given a random input and is converted. Each case stands in the archive as
NAME.file (the converted file's bytes), NAME.x and NAME.y (the input, and what Keras gives for it). A file made anew
differs in names and in the converters' version; inputs, weights and outputs follow from the seed.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

I, H, T, N = 3, 4, 6, 2


def layers_of(K):
    """Name -> a function that makes the layers, of Keras 3 (K is keras) or of tf_keras."""
    L = K.layers
    return {
        "lstm": lambda: [L.LSTM(H, return_sequences=True)],
        "lstm_last": lambda: [L.LSTM(H)],
        "lstm_nobias": lambda: [L.LSTM(H, use_bias=False, return_sequences=True)],
        "lstm_hard": lambda: [L.LSTM(H, recurrent_activation="hard_sigmoid", return_sequences=True)],
        "lstm_back": lambda: [L.LSTM(H, go_backwards=True, return_sequences=True)],
        "lstm_mask": lambda: [L.Masking(), L.LSTM(H, return_sequences=True)],
        "lstm_time_major": lambda: [L.LSTM(H, time_major=True, return_sequences=True)],
        "lstm_stack": lambda: [L.LSTM(H, return_sequences=True), L.LSTM(5)],
        "bi_lstm": lambda: [L.Bidirectional(L.LSTM(H, return_sequences=True))],
        "gru": lambda: [L.GRU(H, return_sequences=True)],
        "gru_before": lambda: [L.GRU(H, reset_after=False, return_sequences=True)],
        "gru_relu": lambda: [L.GRU(H, activation="relu", return_sequences=True)],
        "gru_mask": lambda: [L.Masking(), L.GRU(H, return_sequences=True)],
        "bi_gru_before": lambda: [L.Bidirectional(L.GRU(H, reset_after=False, return_sequences=True))],
        "rnn": lambda: [L.SimpleRNN(H, return_sequences=True)],
        "rnn_relu": lambda: [L.SimpleRNN(H, activation="relu", return_sequences=True)],
        "rnn_last": lambda: [L.SimpleRNN(H)],
        "rnn_mask": lambda: [L.Masking(), L.SimpleRNN(H, return_sequences=True)],
        "rnn_unroll": lambda: [L.SimpleRNN(H, unroll=True)],
        "stack_rnn": lambda: [L.SimpleRNN(H, return_sequences=True), L.SimpleRNN(H, activation="relu")],
        "stacked_cells": lambda: [L.RNN(L.StackedRNNCells([L.LSTMCell(H), L.LSTMCell(H)]), return_sequences=True)],
    }


def drawn(K, name, rng, **shape):
    """A model with weights U(-1, 1), an input (of a mask's row 0 only four steps count), and the model's output."""
    model = K.Sequential([K.Input((T, I), **shape), *layers_of(K)[name]()])
    model.set_weights([rng.uniform(-1, 1, w.shape).astype("f4") for w in model.get_weights()])
    x = rng.standard_normal((N, T, I)).astype("f4")
    if "mask" in name:
        x[0, 4:] = 0
    return model, x, np.asarray(model(x))


def tf2onnx_files(rng):
    """Name -> (bytes, x, y): with batch and steps free; with both fixed where the name ends in _static."""
    import tf2onnx
    K, result = tf.keras, {}
    for name in ("gru", "gru_static", "gru_before", "gru_relu", "gru_mask", "rnn", "rnn_relu", "rnn_relu_static",
                 "rnn_last", "rnn_mask", "lstm", "lstm_back", "bi_lstm", "lstm_mask", "lstm_mask_static",
                 "bi_gru_before", "stack_rnn", "stacked_cells", "lstm_hard"):
        kind, fixed = name.removesuffix("_static"), name.endswith("_static")
        model, x, y = drawn(K, kind, rng)
        called = model
        if not fixed:
            called = K.Sequential([K.Input((None, I)), *layers_of(K)[kind]()])
            called.set_weights(model.get_weights())
        signature = (tf.TensorSpec((N, T, I) if fixed else (None, None, I), tf.float32, name="x"),)
        function = tf.function(lambda x, called=called: called(x), input_signature=signature)
        converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
        result[name] = converted.SerializeToString(), x, y
    return result


def tflite_files(rng):
    """Name_kind -> (bytes, x, y): layers of tf_keras, which TensorFlow's converter fuses, and loops of Keras 3."""
    import tf_keras
    fused = {"lstm": ("float", "dynamic", "float16", "int8"), "lstm_last": ("float",), "lstm_time_major": ("float",),
             "lstm_stack": ("float",), "lstm_back": ("float",), "bi_lstm": ("float",), "rnn_unroll": ("float",)}
    result = {}
    for name, kinds in fused.items():
        model, x, y = drawn(tf_keras, name, rng, batch_size=N)
        for kind in kinds:
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            result[f"{name}_{kind}"] = convert(converter, kind, rng), x, y
    for name in ("lstm_nobias", "gru", "rnn_relu", "lstm_mask"):
        model, x, y = drawn(tf.keras, name, rng)
        signature = (tf.TensorSpec((N, T, I), tf.float32, name="x"),)
        function = tf.function(lambda x, model=model: model(x), input_signature=signature)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], model)
        result[f"{name}_float"] = convert(converter, "float", rng), x, y
    return result


def convert(converter, kind, rng):
    """A converter's bytes: float; dynamic (8-bit weights), float16, or int8 with activations."""
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        converter.representative_dataset = lambda: ([rng.standard_normal((N, T, I)).astype("f4")] for _ in range(10))
    return converter.convert()


def main(folder):
    for archive, files in (("tf2onnx", tf2onnx_files), ("tflite", tflite_files)):
        arrays = {}
        for name, (data, x, y) in files(np.random.default_rng(0)).items():
            arrays |= {f"{name}.file": np.frombuffer(data, np.uint8), f"{name}.x": x, f"{name}.y": y}
        np.savez_compressed(Path(folder) / f"{archive}.npz", **arrays)
        print(f"{archive}.npz: {len(arrays) // 3} files")


if __name__ == "__main__":
    main(sys.argv[1])
