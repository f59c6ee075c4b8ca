"""fastrnn in other people's programs: what it takes, one class a package.

g2p_en, g2pM, nagisa and madmom each run recurrent networks in a loop of their own. Here that loop is replaced, all else
stays theirs. benchmarks/dropin.py installs them, compares the outputs and takes the times.
"""

import numpy as np

import fastrnn
from fastrnn.interop.conventions import reorder


def faster_g2p_en(G2p):
    """g2p_en: letters to phonemes; one GRU reads the letters, another writes phonemes and is fed the one before.

    A GRU of 256 units and one row is bound by reading its weights, in NumPy as here. So they are read less, in two
    ways. Letters and phonemes are rows of small tables: table times input weights is computed once, and the GRU is
    given rows of an identity matrix. And the unknown words of a text go through the networks together, as one batch.
    """

    class Later(str):
        """A word that waits for the others of its text."""

    class FasterG2p(G2p):
        def load_variables(self):
            super().load_variables()
            weights, self.letters = self.of_rows("enc")
            self.encoder = fastrnn.GRU(len(self.letters), 256)
            self.encoder.load_state_dict({f"{name}_l0": value for name, value in weights.items()})
            weights, self.sounds = self.of_rows("dec")
            self.decoder = fastrnn.GRUCell(len(self.sounds), 256)
            self.decoder.load_state_dict(weights)

        def of_rows(self, part):
            table, w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{part}_{name}")
                                             for name in ("emb", "w_ih", "w_hh", "b_ih", "b_hh"))
            weights = {"weight_ih": w_ih @ table.T, "weight_hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh}
            return weights, np.eye(len(table), dtype=np.float32)

        def spelled(self, word):
            return [self.g2idx.get(letter, 1) for letter in word] + [2]         # 1: unknown, 2: the end

        def predict(self, word):
            _, h = self.encoder(self.letters[self.spelled(word)])
            h, sound, found = h[0], 2, []                                       # 2: the start, 3: the end
            while len(found) < 20:
                h = self.decoder(self.sounds[sound], h)
                sound = (self.fc_w.dot(h) + self.fc_b).argmax()
                if sound == 3:
                    break
                found.append(self.idx2p[sound])
            return found

        def predict_all(self, words):
            if len(words) < 2:
                return [self.predict(word) for word in words]
            lengths = [len(word) + 1 for word in words]
            letters = np.zeros((max(lengths), len(words)), int)
            for row, word in enumerate(words):
                letters[:lengths[row], row] = self.spelled(word)
            _, h = self.encoder(self.letters[letters], lengths=lengths)
            h, rows, sounds, found = h[0], np.arange(len(words)), np.full(len(words), 2), [[] for _ in words]
            for _ in range(20):
                h = self.decoder(self.sounds[sounds], h)
                sounds = (h @ self.fc_w.T + self.fc_b).argmax(1)
                going = sounds != 3
                rows, sounds, h = rows[going], sounds[going], h[going]
                if not len(rows):
                    break
                for row, sound in zip(rows.tolist(), sounds.tolist()):
                    found[row].append(self.idx2p[sound])
            return found

        def __call__(self, text):
            waiting = {}
            self.predict = lambda word: [waiting.setdefault(word, Later(word))]
            try:
                sounds = super().__call__(text)
            finally:
                del self.predict
            found = dict(zip(waiting, self.predict_all(list(waiting))))
            return [one for sound in sounds for one in (found[sound] if isinstance(sound, Later) else [sound])]

    return FasterG2p


def faster_g2pM(G2pM):
    """g2pM: Chinese characters to pinyin; a bidirectional LSTM: one call instead of two cells a step."""

    class FasterG2pM(G2pM):
        def load_variable(self, state_dict):
            super().load_variable(state_dict)
            parameters = {name.removeprefix("lstm."): value for name, value in state_dict.items() if "lstm." in name}
            _, width = self.weight_ih.shape
            _, units = self.weight_hh.shape
            self.lstm = fastrnn.LSTM.from_parameters(parameters, width, units, bidirectional=True, batch_first=True)

        def predict(self, inputs, target_idx):
            several = len(inputs) > 1               # sentences, padded with zeros; else one, and characters of it
            lengths = np.count_nonzero(inputs, axis=1) if several else None
            hidden, _ = self.lstm(self.embeddings[inputs], lengths=lengths)
            return self.fc_layer(hidden[np.arange(len(inputs)) if several else 0, target_idx]).argmax(1)

    return FasterG2pM


class FasterBiRNN:
    """nagisa: Japanese words and their tags; its stack of bidirectional LSTMs (gates i, f, o, g; one bias)."""

    def __init__(self, birnn):
        parameters = {}
        for depth, directions in enumerate(birnn.layers):
            for own, suffix in zip(directions, (f"_l{depth}", f"_l{depth}_reverse")):
                parameters |= {"weight_ih" + suffix: reorder(own.WxT.T, "lstm", "nagisa"),
                               "weight_hh" + suffix: reorder(own.WhT.T, "lstm", "nagisa"),
                               "bias_ih" + suffix: reorder(own.b, "lstm", "nagisa"),
                               "bias_hh" + suffix: np.zeros_like(own.b)}
        first = birnn.layers[0][0]
        self.lstm = fastrnn.LSTM.from_parameters(parameters, len(first.WxT), len(first.WhT), len(birnn.layers),
                                                 bidirectional=True)

    def transduce(self, X):
        return self.lstm(X)[0]


# madmom's class -> ours; its gates in our order; who holds the functions (gates, candidate, on the cell); our options
MADMOM_KINDS = {
    "RecurrentLayer": (fastrnn.RNN, lambda own: [own], lambda own: [own], {}),
    "GRULayer": (fastrnn.GRU, lambda own: [own.reset_gate, own.update_gate, own.cell],
                 lambda own: [own.reset_gate, own.cell], {"update": "mirror"}),
    "LSTMLayer": (fastrnn.LSTM, lambda own: [own.input_gate, own.forget_gate, own.cell, own.output_gate],
                  lambda own: [own.input_gate, own.cell, own], {"peephole": True}),
}


class FasterStack:
    """madmom: the recurrent layers of a network as one layer, called the way madmom calls each of its own.

    Its LSTMs have peepholes; its GRUs update the mirrored way, h = z n + (1 - z) h; initial states may be learned.
    """

    def __init__(self, layers):
        directions = [(layer.fwd_layer, layer.bwd_layer) if hasattr(layer, "fwd_layer") else (layer,)
                      for layer in layers]
        first = directions[0][0]
        cls, gates_of, functions_of, options = MADMOM_KINDS[type(first).__name__]
        parameters, states = {}, []
        for depth, pair in enumerate(directions):
            for own, suffix in zip(pair, (f"_l{depth}", f"_l{depth}_reverse")):
                for name, part in (("weight_ih", "weights"), ("weight_hh", "recurrent_weights"), ("bias_ih", "bias")):
                    parameters[name + suffix] = np.concatenate([getattr(gate, part).T for gate in gates_of(own)])
                parameters["bias_hh" + suffix] = np.zeros_like(parameters["bias_ih" + suffix])
                if cls is fastrnn.LSTM:
                    parameters["peephole" + suffix] = np.concatenate(
                        [gate.peephole_weights for gate in (own.input_gate, own.forget_gate, own.output_gate)])
                states.append((own.init, own.cell_init) if cls is fastrnn.LSTM else (own.init,))
        self.layer = cls.from_parameters(
            parameters, len(gates_of(first)[0].weights), first.init.size, len(layers),
            bidirectional=len(directions[0]) == 2,
            activations=[own.activation_fn.__name__ for own in functions_of(first)], **options)
        states = tuple(np.stack(values)[:, None] for values in zip(*states))
        self.start = states if cls is fastrnn.LSTM else states[0]
        self.stream = None if self.layer.bidirectional else self.layer.stream()

    def activate(self, data, reset=True):
        data = np.asarray(data, self.layer.dtype)
        if self.stream is None:                     # bidirectional: always from the start
            return self.layer(data[:, None], self.start)[0][:, 0]
        if reset:
            self.reset()
        return self.stream.step(data[0])[None] if len(data) == 1 else self.stream.run(data)

    def reset(self):
        if self.stream is not None:
            self.stream.state = self.start


def with_fastrnn(processor):
    """A madmom processor, the recurrent layers of its networks (they come first in each) replaced."""
    if hasattr(processor, "layers"):
        own = [layer for layer in processor.layers if hasattr(layer, "fwd_layer") or hasattr(layer, "init")]
        processor.layers = [FasterStack(own), *processor.layers[len(own):]]
    for part in getattr(processor, "processors", ()):
        with_fastrnn(part)
    return processor
