"""Packages that bring an RNN loop of their own, and the same with fastrnn in its place: outputs compared, both timed.

    python benchmarks/dropin.py                        all four; the first run makes an environment below build
    python benchmarks/dropin.py --only g2pM            one package
    python benchmarks/dropin.py --json out/dropin.json

What it takes to put fastrnn into each of them stands in benchmarks/replacements.py. Here the packages are installed
from PyPI, run with it and without, and the times printed.

How it measures: as benchmarks/peers.py does. One process on one CPU, one thread for every library; before and after
take turns in every round; a time is the median over rounds, a speed-up the median of the rounds' ratios. Phonemes,
pinyin and tags must be the same, numbers within 1e-5, else the exit status is 1; a target that is missed is only said.
Recorded inputs and outputs are looked for in FASTRNN_DATA, else in ../shared/data; what needs them is left out where
they are not.
"""
# Nothing but the standard library may be imported here: the outer process has no more, and the inner one sets threads
# and CPU before NumPy loads.
import argparse
import copy
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from peers import Turns, cpu_model, ratio

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-5

# ---- What is run with them and without ---------------------------------------------------------------------


@dataclass
class Timed:
    """Two calls that should return the same, and the speed-up that is aimed at."""
    title: str
    before: Callable
    after: Callable
    target: float | None = None


@dataclass
class Recorded:
    """What came out, and what the data folder says should."""
    title: str
    got: object
    want: object


def g2p_en_cases(recorded):
    import nltk

    # The package fetches a dictionary and a tagger while it is imported, and looks a word up before it asks its
    # networks. An empty dictionary leaves every word to them; tags then matter to homographs only: the text has none.
    nltk.download = lambda *args, **options: True
    import g2p_en.g2p as package
    package.cmudict = argparse.Namespace(dict=dict)
    package.pos_tag = lambda words: [(word, "") for word in words]
    from replacements import faster_g2p_en
    own, faster = package.G2p(), faster_g2p_en(package.G2p)()
    if golden := recorded("g2p_en/golden_phonemes.json"):
        yield Recorded(f"{len(golden)} recorded words", [faster.predict(word) for word in golden], [*golden.values()])
        yield Recorded("the same in one batch", faster.predict_all([*golden]), [*golden.values()])
    words = ("activationist antidisestablishmentarianism bartholomew cythonize hyperparameter gigaflop quixotic "
             "tchaikovsky tensorflow xylophonist backpropagate detokenized vectorised whippersnapper").split()
    text = " ".join(words)
    yield Timed(f"text of {len(words)} unknown words", lambda: own(text), lambda: faster(text), 5)
    yield Timed("text of 1 unknown word", lambda: own(words[2]), lambda: faster(words[2]))


def g2pM_cases(recorded):
    from g2pM import G2pM
    from replacements import faster_g2pM
    own, faster = G2pM(), faster_g2pM(G2pM)()
    if golden := recorded("g2pM/golden_pinyin.json"):
        yield Recorded(f"{len(golden)} recorded sentences", [faster(text, char_split=True) for text in golden],
                       [*golden.values()])
    sentence = "我们都知道银行的行长行事果断，长得也很高。"
    for text, target in ((sentence, 5), (6 * sentence, 5), ("长大", None)):
        yield Timed(f"{len(text)} characters", lambda text=text: own(text), lambda text=text: faster(text), target)


def nagisa_cases(recorded):
    import numpy as np
    from nagisa.tagger import Tagger
    from replacements import FasterBiRNN
    own = Tagger()
    faster, models = copy.copy(own), {}
    faster._model = copy.copy(own._model)
    for name in ("ws_model", "pos_model"):
        models[name] = getattr(own._model, name), FasterBiRNN(getattr(own._model, name))
        setattr(faster._model, name, models[name][1])

    def tagged(tagger, text):
        tokens = tagger.tagging(text)
        return [tokens.words, tokens.postags]

    if golden := recorded("nagisa/golden_tags.json"):
        yield Recorded(f"tags of {len(golden)} recorded texts", [tagged(faster, text) for text in golden],
                       [*golden.values()])
    if golden := recorded("nagisa/golden_bilstm.npz"):
        calls = [(golden[f"x{n}"], golden[f"y{n}"], *models["pos_model" if n % 2 else "ws_model"])
                 for n in range(len(golden) // 2)]
        yield Recorded(f"{len(calls)} recorded calls", np.concatenate([layer.transduce(x) for x, _, _, layer in calls]),
                       np.concatenate([y for _, y, _, _ in calls]))
        for x, _, kernel, layer in sorted(calls, key=lambda call: (call[0].shape[::-1])):
            yield Timed(f"recorded call, {x.shape[0]} x {x.shape[1]}, its Cython kernel",
                        lambda x=x, kernel=kernel: kernel.transduce(x), lambda x=x, layer=layer: layer.transduce(x), 1)
    text = "リカレントネットワークを速くするための小さなライブラリです。"
    yield Timed(f"words and tags of {len(text)} characters", lambda: tagged(own, text), lambda: tagged(faster, text))


def madmom_cases(recorded):
    import collections

    import numpy as np
    # Names that NumPy and Python had when it was written.
    vars(np).update(float=float, int=int)
    collections.MutableSequence = collections.abc.MutableSequence
    from madmom.audio.signal import FramedSignal, Signal
    from madmom.features.beats import RNNBeatProcessor
    from madmom.features.downbeats import RNNBarProcessor
    from madmom.features.notes import RNNPianoNoteProcessor
    from madmom.features.onsets import RNNOnsetProcessor
    from replacements import with_fastrnn

    # ten seconds: a click every half second, in noise
    rate, beat = 44100, 0.5
    since = np.arange(10 * rate) / rate % beat
    sound = 0.5 * np.sin(2 * np.pi * 1000 * since) * np.exp(-60 * since)
    sound += 0.02 * np.random.default_rng(0).standard_normal(len(sound))
    signal = Signal((30000 * sound).astype(np.int16), sample_rate=rate, num_channels=1)

    def both(title, processors, run, data):
        """A processor end to end, then its networks by themselves on the features that they get."""
        own, faster = processors
        yield Timed(title, lambda: run(own, data), lambda: run(faster, data))
        features = [own.processors[0](one) for one in data] if isinstance(data, list) else own.processors[0](data)
        yield Timed("  its networks alone", lambda: run(own.processors[1], features),
                    lambda: run(faster.processors[1], features))

    def at_once(processor, data):
        return processor(data)

    def streamed(processor, frames):
        return np.concatenate([processor(frame, reset=number == 0) for number, frame in enumerate(frames)])

    frames = list(FramedSignal(signal, frame_size=2048, fps=100, origin="online", num_frames=None))
    online = {"online": True, "origin": "stream", "num_frames": 1}
    for title, make, run, data, options in (
            ("beats, 8 peephole bi-LSTMs", RNNBeatProcessor, at_once, signal, {}),
            ("beats, 8 peephole LSTMs, streamed", RNNBeatProcessor, streamed, frames, online),
            ("onsets, 8 tanh bi-RNNs", RNNOnsetProcessor, at_once, signal, {}),
            ("onsets, 8 tanh RNNs, streamed", RNNOnsetProcessor, streamed, frames, online),
            ("piano notes, a tanh bi-RNN", RNNPianoNoteProcessor, at_once, signal, {})):
        yield from both(title, (make(**options), with_fastrnn(make(**options))), run, data)
    # Of the bars' two ensembles, the one fed by percussion: the other one's features need ffmpeg.
    own, faster = RNNBarProcessor(), with_fastrnn(RNNBarProcessor().perc_nn)
    features = own.perc_beat_sync((own.perc_feat(signal), np.arange(0, 10, beat)))
    features = features.reshape(len(features), -1)
    yield Timed("bars, 6 bi-GRUs, networks alone", lambda: own.perc_nn(features), lambda: faster(features))


# Cases, and what pip is asked for. nagisa needs the rest of its requirements for training only; madmom's setup.py
# imports NumPy and Cython, and madmom itself pkg_resources, which setuptools has no more from 81 on.
PACKAGES = {
    "g2p_en": (g2p_en_cases, [["g2p_en==2.1.0"]]),
    "g2pM": (g2pM_cases, [["g2pM==0.1.2.5"]]),
    "nagisa": (nagisa_cases, [["--no-deps", "nagisa==0.3.0"], ["six"]]),
    "madmom": (madmom_cases, [["cython", "scipy", "mido", "wheel", "setuptools<81"],
                              ["--no-build-isolation", "madmom==0.16.1"]]),
}

# ---- Environment, measurement, report ------------------------------------------------------------------------


def arguments():
    first, rest = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PACKAGES, help="one package instead of all")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="rounds of every case (default 25)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything measured here")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)      # this is the environment's Python
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    return args


def environment(names):
    """Python of an environment below build, made where missing, with what `names` need. What does not install is said.

    It is of this Python's version: fastrnn is not installed there, but used as it was built in place.
    """
    folder = ROOT / "build" / f"dropin-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    for name in names:
        asked, done = [["numpy>=2.0"], *PACKAGES[name][1]], folder / f"{name}.json"
        if done.is_file() and json.loads(done.read_text()) == asked:
            continue
        print(f"installing {name} in {folder.relative_to(ROOT)}", flush=True)
        for requirements in asked:
            pip = subprocess.run([python, "-m", "pip", "install", "-q", *requirements], capture_output=True, text=True)
            if pip.returncode:
                errors = [line for line in pip.stderr.splitlines() if "error" in line.lower()] or ["pip failed"]
                print(f"{name} does not install here: {' '.join(requirements)}: {errors[-1].strip()}", flush=True)
                break
        else:
            done.write_text(json.dumps(asked))
    return python


def prepare_process():
    """One CPU, one thread for every library. Returns the CPU's number."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    sys.path.insert(0, str(ROOT))           # fastrnn as built in place; it fits any NumPy from 2.0 on
    warnings.simplefilter("ignore")         # these packages' own, about what newer Pythons and NumPys will do away with
    if not hasattr(os, "sched_setaffinity"):
        return None
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def reader(data):
    """A file of the data folder's models by its name, or None where there is no such folder."""
    def read(name):
        import numpy as np
        path = data / "models" / name
        if not path.is_file():
            return None
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    return read


def difference(got, want):
    """Largest difference of two arrays, infinite for two shapes; of anything else 0 where equal, infinite where not."""
    import numpy as np
    if isinstance(want, np.ndarray):
        return float(np.max(np.abs(got - want))) if got.shape == want.shape else float("inf")
    return 0.0 if got == want else float("inf")


def repeated(call):
    def run(n):
        for _ in range(n):
            call()
    return run


def seconds(value):
    return f"{value * 1e6:.4g} us" if value < 1e-3 else f"{value * 1e3:.4g} ms" if value < 1 else f"{value:.4g} s"


def measured(name, case, turns):
    """The row of one case, printed."""
    if isinstance(case, Recorded):
        row = {"package": name, "case": case.title, "difference": difference(case.got, case.want)}
        figures = f"{'as recorded':>34}"
    else:
        row = {"package": name, "case": case.title, "difference": difference(case.after(), case.before())}
        times = turns.measure({"before": repeated(case.before), "after": repeated(case.after)})
        row |= {part: median(values) for part, values in times.items()}
        row |= {"speed_up": ratio(times["before"], times["after"]), "target": case.target, "rounds": times}
        figures = f"{seconds(row['before']):>12}{seconds(row['after']):>12}{row['speed_up']:>9.2f}x"
        if case.target:
            figures += f"  {'met' if row['speed_up'] >= case.target else 'MISSED'} ({case.target}x)"
    wrong = not row["difference"] <= TOLERANCE          # NaN too
    equal = "same" if row["difference"] == 0 else f"{row['difference']:.1e}"
    print(f"{name:8}{case.title:<52}{figures:<50}{'WRONG: ' if wrong else ''}{equal}", flush=True)
    row["wrong"] = wrong
    return row


def inside(args, names):
    """The measurement, in the environment of the packages. Returns the exit status."""
    cpu = prepare_process()
    data = Path(os.environ.get("FASTRNN_DATA") or ROOT.parent / "shared" / "data")
    try:
        import fastrnn
    except ImportError as error:
        sys.exit(f"fastrnn cannot be imported: {error}\n"
                 "(not built for this Python? python setup.py build_ext --inplace)")
    fastrnn.set_num_threads(1)
    header = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
              "machine": f"{cpu_model()}, {os.cpu_count()} CPUs", "pinned to": f"CPU {cpu}", "rounds": args.rounds,
              "fastrnn": f"{fastrnn.__version__}, {fastrnn.active_isa()}", "python": platform.python_version(),
              "numpy": importlib.metadata.version("numpy")}
    print("\n".join(f"{name}: {value}" for name, value in header.items()))
    if not data.is_dir():
        print(f"no data at {data} (FASTRNN_DATA): recorded words, sentences and nagisa's recorded calls are left out")
    print(f"\n{'package':8}{'what':<52}{'before':>12}{'fastrnn':>12}{'speed-up':>10}  {'target':<14}{'difference'}")
    turns, rows = Turns(args.rounds, 2e-3), []
    for name in names:
        try:
            for case in PACKAGES[name][0](reader(data)):
                rows.append(measured(name, case, turns))
        except ImportError as error:
            print(f"{name:8}left out, it cannot be imported: {error}", flush=True)
    if turns.interrupted:
        print(f"{turns.interrupted} of {turns.taken} turns were cut into by other processes")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"header": header, "rows": rows}, indent=1, ensure_ascii=False))
    return int(not rows or any(row["wrong"] for row in rows))


def main():
    args = arguments()
    names = [args.only] if args.only else list(PACKAGES)
    if args.inside:
        return inside(args, names)
    return subprocess.call([environment(names), *sys.argv, "--inside"])


if __name__ == "__main__":
    sys.exit(main())
