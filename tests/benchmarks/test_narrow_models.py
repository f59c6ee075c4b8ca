"""benchmarks/narrow_models.py: float32 gives what the packages gave; narrow weights stay within what the page says."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from fastrnn.nn.quantized import PRECISIONS

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[2] / "benchmarks"
# Of each precision: what a cosine may fall to, a probability, a signal's error or a part of all decisions come to.
BOUNDS = {"int8": (0.9985, 0.02, 0.01, 0.04), "bfloat16": (0.9999, 0.005, 0.02, 0.02),
          "float16": (0.99999, 0.001, 0.002, 0.01)}


@pytest.fixture(scope="module")
def figures(request):
    request.getfixturevalue("data_dir")
    sys.path.insert(0, str(FOLDER))
    try:
        module = importlib.import_module("narrow_models")
    finally:
        sys.path.remove(str(FOLDER))
    return module, module.table(PRECISIONS)


def test_float32_is_what_the_packages_computed(figures, data_dir):
    module, table = figures
    for measures in table.values():
        for measure, values in measures.items():
            exact = {"cosine": pytest.approx(1, abs=1e-6), "probabilities": pytest.approx(0, abs=1e-3),
                     "error": pytest.approx(0, abs=1e-6), "changed": 0}
            assert values["float32"] == next(bound for word, bound in exact.items() if word in measure)
    golden = json.loads((data_dir / "models" / "g2p_en" / "golden_phonemes.json").read_text(encoding="utf-8"))
    written = module.g2p_en("float32")
    assert all(written.values())
    assert all(len(golden[word]) == len(written[word]) for word in golden if word in written)
    # one number stands for one phoneme everywhere
    pairs = {pair for word in golden if word in written for pair in zip(golden[word], written[word], strict=True)}
    assert len({name for name, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_narrow_weights(precision, figures):
    _, table = figures
    cosine, probability, error, share = BOUNDS[precision]
    for measures in table.values():
        for measure, values in measures.items():
            value = values[precision]
            if "cosine" in measure:
                assert cosine <= value < 1 - 1e-8
            elif "probabilities" in measure:
                assert 0 < value <= probability
            elif "error" in measure:
                assert 1e-6 < value <= error
            else:
                total = int(measure.split(" of ")[1].rstrip(",").split()[0].rstrip(","))
                assert value <= share * total
                if "decisions" in measure:
                    assert value == 0
