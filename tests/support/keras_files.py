"""Models of Keras 3 in its three formats, and what they give: run as a script, with the folder to write to.

Every layer is a branch from one input, so that one model and one call are enough.
"""

import sys
from pathlib import Path

import numpy as np

N, T, I, H = 3, 6, 5, 4
ACTIVATIONS = ("tanh", "sigmoid", "linear", "relu", "elu", "softplus", "softsign", "leaky_relu", "hard_sigmoid", "celu",
               "sparse_sigmoid")
UNKNOWN = ("gelu", "silu", "swish", "selu", "exponential", "relu6", "mish", "softmax", "hard_tanh")
CLASSES = {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}
MERGES = ("sum", "mul", "ave")


def plain_cases():
    """Name -> (class, options) of single layers."""
    for kind, cls in CLASSES.items():
        yield kind, (cls, {})
        yield f"{kind}_no_bias", (cls, {"use_bias": False})
        yield f"{kind}_backwards", (cls, {"go_backwards": True})
        yield f"{kind}_dropout", (cls, {"dropout": 0.5, "recurrent_dropout": 0.5, "unroll": True})
        for activation in ACTIVATIONS:
            yield f"{kind}_of_{activation}", (cls, {"activation": activation})
            if kind != "rnn":
                yield f"{kind}_by_{activation}", (cls, {"recurrent_activation": activation})
    for name, options in (("", {}), ("_no_bias", {"use_bias": False}), ("_backwards", {"go_backwards": True}),
                          ("_of_relu", {"activation": "relu"})):
        yield f"gru_before{name}", ("GRU", {"reset_after": False, **options})


def main(folder):
    import keras
    from keras import layers as L
    rng = np.random.default_rng(0)

    def save(model, name, formats=(".keras", ".h5", ".weights.h5")):
        """The model with random weights, in these formats, and what it gives."""
        model.set_weights([rng.uniform(-0.6, 0.6, w.shape).astype(w.dtype) for w in model.get_weights()])
        for ending in formats:
            (model.save_weights if ending == ".weights.h5" else model.save)(folder / f"{name}{ending}")
        outputs = {key: keras.ops.convert_to_numpy(value) for key, value in model(x).items()}
        np.savez(folder / f"{name}.npz", x=x, **outputs)

    def layer(kind, units=H, **options):
        return getattr(L, CLASSES[kind])(units, return_sequences=True, **options)

    x = rng.standard_normal((N, T, I)).astype(np.float32)
    given = keras.Input((T, I))
    branches = {name: getattr(L, cls)(H, return_sequences=True, name=name, **options)
                for name, (cls, options) in plain_cases()}
    for kind in CLASSES:
        branches[f"both_{kind}"] = L.Bidirectional(layer(kind), name=f"both_{kind}")
        for merge in MERGES:
            branches[f"{merge}_{kind}"] = L.Bidirectional(layer(kind), merge_mode=merge, name=f"{merge}_{kind}")
    branches |= {
        "both_before": L.Bidirectional(layer("gru", reset_after=False, use_bias=False), name="both_before"),
        "both_activations": L.Bidirectional(
            layer("lstm", activation="relu"), name="both_activations", backward_layer=layer(
                "lstm", activation="softsign", recurrent_activation="hard_sigmoid", go_backwards=True)),
        "unlike": L.Bidirectional(layer("lstm"), backward_layer=layer("gru", 3, go_backwards=True), name="unlike"),
        "turned": L.Bidirectional(layer("lstm", go_backwards=True), backward_layer=layer("lstm"), name="turned"),
        "cell": L.RNN(L.GRUCell(H), return_sequences=True, name="cell"),
        "cell_backwards": L.RNN(L.SimpleRNNCell(H, activation="relu"), return_sequences=True, go_backwards=True,
                                name="cell_backwards"),
        "stack": L.RNN([L.LSTMCell(H) for _ in range(3)], return_sequences=True, name="stack"),
        "mixed": L.RNN([L.LSTMCell(H, name="low"), L.GRUCell(3, name="high")], return_sequences=True, name="mixed"),
        "both_stack": L.Bidirectional(L.RNN([L.GRUCell(H) for _ in range(2)], return_sequences=True),
                                      name="both_stack"),
        "layer_as_activation": layer("rnn", activation=L.LeakyReLU(negative_slope=0.4), name="layer_as_activation"),
        "elu_as_activation": layer("rnn", activation=L.ELU(alpha=0.7), name="elu_as_activation"),
        "relu_as_activation": layer("rnn", activation=L.ReLU(), name="relu_as_activation"),
        "double": layer("lstm", dtype="float64", name="double"),
        "lambda": keras.Sequential([L.Lambda(lambda value: value + 1), layer("gru", name="after")], name="lambda"),
        "dense_between": keras.Sequential([layer("lstm", name="first"), L.Dense(3), L.BatchNormalization(),
                                           layer("lstm", name="last")], name="dense_between"),
        "nested": keras.Sequential([layer("lstm", name="first"), keras.Sequential(
            [layer("gru", name="second"), L.Bidirectional(layer("lstm"), name="both")], name="inner")], name="nested"),
        "distributed": L.TimeDistributed(layer("lstm", name="within"), name="distributed"),
    }
    inner = keras.Input((T, I))
    branches["functional"] = keras.Model(inner, layer("rnn", name="last")(layer("lstm", name="first")(inner)),
                                         name="functional")
    frozen = keras.Sequential([layer("lstm", name="frozen"), layer("lstm", name="free")], name="partly_frozen")
    frozen.layers[0].trainable = False
    branches["partly_frozen"] = frozen
    halves = L.Reshape((2, T // 2, I))(given)
    save(keras.Model(given, {name: branch(halves if name == "distributed" else given)
                             for name, branch in branches.items()}), "all")

    class OwnCell(L.LSTMCell):
        pass

    def own(value):
        return value

    branches = {f"lstm_of_{name}": layer("lstm", activation=name, name=f"lstm_of_{name}") for name in UNKNOWN} | {
        "gru_by_gelu": layer("gru", recurrent_activation="gelu", name="gru_by_gelu"),
        "own_function": layer("rnn", activation=own, name="own_function"),
        "own_cell": L.RNN(OwnCell(H), return_sequences=True, name="own_cell"),
        "limited": layer("rnn", activation=L.ReLU(max_value=2.0), name="limited"),
        "good": layer("lstm", name="good"),
        "both_of_gelu": L.Bidirectional(layer("gru", activation="gelu"), name="both_of_gelu"),
        "convolutional": keras.Sequential([L.Reshape((T, I, 1)), L.ConvLSTM1D(
            2, 3, name="conv")], name="convolutional")}
    save(keras.Model(given, {name: branch(given) for name, branch in branches.items()}), "refused", (".keras", ".h5"))

    class Own(keras.Model):
        """A model whose configuration names no layers."""

        def __init__(self, **options):
            super().__init__(**options)
            self.encoder = layer("lstm", name="encoder_name")
            self.heads = [L.Bidirectional(layer("gru")), L.Dense(2)]

        def call(self, value):
            middle = self.encoder(value)
            return {"encoder": middle, "heads": self.heads[0](middle)}

    model = Own(name="own")
    model(x)
    save(model, "own", (".keras", ".weights.h5"))

    small = layer("lstm", 2, name="a")(given)
    save(keras.Model(given, {"a": small, "b": L.Bidirectional(layer("gru", 2), name="b")(small)}), "tiny")

    uniform = dict.fromkeys(("kernel_initializer", "recurrent_initializer", "bias_initializer"), "random_uniform")
    model = keras.Sequential([given, layer("lstm", dtype="bfloat16", name="half", **uniform)])
    model.save_weights(folder / "half.weights.h5")
    np.savez(folder / "half.npz", *[keras.ops.convert_to_numpy(keras.ops.cast(w, "float32")) for w in model.weights])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
