# %% [markdown]
# # Training, from data to a file and back
#
# A network learns to spell numbers letter by letter: after "three hundred sev" it is to say "e". The sequences have
# different lengths, training goes on from a checkpoint, and the weights that did best on other numbers are kept. The
# model is saved to one file and loaded again, and then it writes numbers of its own.

# %%
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import GRU, Embedding, Linear, Sequential, losses, optim, training

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen").split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def spelled(n):
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    return f"{spelled(n // size)} {name}" + (" " + spelled(n % size) if n % size else "")


letters = "\n -" + "".join(chr(ord("a") + i) for i in range(26))      # the first ends a number, and begins one
rng = np.random.default_rng(0)
words = [np.array([letters.index(letter) for letter in f"\n{spelled(n)}\n"]) for n in rng.permutation(100_000)[:1600]]
x, y = [word[:-1] for word in words], [word[1:] for word in words]
known, other = slice(0, 1300), slice(1300, None)
print(f"{len(words)} numbers of {min(map(len, x))} to {max(map(len, x))} letters, for example {spelled(72_515)}")

# %% [markdown]
# Three modules in a chain, and a function that trains them. `fit` takes lists of arrays of any lengths: rows of similar
# length meet in a minibatch, and padding does not count in the loss. The checkpoint is written after every epoch, and
# after every 20 updates within an epoch; the file is whole at any moment.


# %%
def model_of(seed):
    return Sequential(Embedding(len(letters), 16, rng=seed), GRU(16, 64, rng=seed), Linear(64, len(letters), rng=seed))


def train(model, epochs, checkpoint=None, seed=0):
    return training.fit(
        model, x[known], y[known], loss=losses.CrossEntropy(), epochs=epochs, batch_size=32, clip_norm=1.0,
        optimizer=optim.AdamW(model, 0.01, schedule=optim.warmup(20, optim.cosine(12 * 41))),
        validation=(x[other], y[other]), patience=3, checkpoint=checkpoint,
        checkpoint_every=20 if checkpoint else None, rng=seed, progress=False)


place = tempfile.TemporaryDirectory()
checkpoint = Path(place.name) / "checkpoint"
history = train(model_of(1), 5, checkpoint)
print(f"after {history.epochs} epochs: {history.note()}")

# %% [markdown]
# Suppose the process was killed here. Another one goes on from the checkpoint, which holds everything: the weights and
# the seed that the new process begins with do not matter. It ends with the same bits as a run that was never stopped.

# %%
model = model_of(2)
history = train(model, 12, checkpoint, seed=3)
print(f"after {history.epochs} epochs: {history.note()}; the best was number {history.best_epoch + 1}")
unstopped = model_of(1)
train(unstopped, 12)
same = all(np.array_equal(unstopped.parameters[name], a) for name, a in model.parameters.items())
print("the same bits as without a stop:", same)
assert same

# %% [markdown]
# How good is that? The loss is in nats a letter. Beside it stand the loss of a model that knows nothing, and that of
# one that knows how frequent each letter is.

# %%
loss = training.evaluate(model, x[other], y[other], loss=losses.CrossEntropy())
counts = 1 + np.bincount(np.concatenate(y[known]), minlength=len(letters))
frequent = -np.mean(np.log(counts / counts.sum())[np.concatenate(y[other])])
print(f"{loss:.3f} nats a letter on numbers it never saw; by frequency {frequent:.3f}, "
      f"by chance {np.log(len(letters)):.3f}")
assert loss < frequent / 4

# %% [markdown]
# The losses are drawn where matplotlib is installed.

# %%
try:
    picture = Path(place.name) / "losses.png"
    history.plot().figure.savefig(picture)
    print(f"losses drawn: {picture.stat().st_size:,} bytes of PNG")
except ImportError as error:
    print(error)

# %% [markdown]
# One file holds the whole chain. The loaded model then writes, a letter at a time: a stream keeps the state between
# letters.

# %%
path = Path(place.name) / "speller.npz"
model.save(path)
speller = fastrnn.load(path)
print(f"{path.name}: {path.stat().st_size:,} bytes, {speller}")
assert all(np.array_equal(speller.parameters[name], a) for name, a in model.parameters.items())


def write(beginning, rng):
    """A number that begins with these letters; each further letter is drawn from the model's probabilities."""
    stream, text = speller.stream(), beginning
    for letter in "\n" + beginning:
        logits = stream.step(letters.index(letter))
    while len(text) < 100:
        p = np.exp(logits - logits.max(), dtype=np.float64)
        letter = letters[rng.choice(len(letters), p=p / p.sum())]
        if letter == "\n":
            break
        text += letter
        logits = stream.step(letters.index(letter))
    return text


for beginning in ("", "s", "forty-two thousand "):
    print(f"{beginning!r:22}->  {write(beginning, rng)}")
names = {spelled(n) for n in range(100_000)}
written = [write("", rng) for _ in range(200)]
share = np.mean([text in names for text in written])
print(f"{share:.0%} of 200 are numbers, spelled correctly")
assert share > 0.6
place.cleanup()
