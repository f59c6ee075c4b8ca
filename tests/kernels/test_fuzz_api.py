"""A slice of the random cases of ``make fuzz-api``, the cases that once failed, and that the campaign finds faults.

A line of fuzz_api_cases.jsonl is a case that failed, made as simple as it could be.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import fuzz_cases
import fuzz_checks
import numpy as np
import pytest
from error_bounds import Arithmetic, BoundedForm, parameters_of, walk, walk_back
from fuzz_cases import Case, Setting
from helpers import assert_same_bits

from fastrnn import _core
from fastrnn._base import validation
from fastrnn.nn import recurrent_base, reference, streams
from fastrnn.nn.parameters import NAMES

CAMPAIGN = Path(__file__).parents[1] / "campaigns" / "fuzz_api.py"
KEPT = Path(__file__).with_name("fuzz_api_cases.jsonl").read_text().splitlines()


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_random_cases(first):
    for number in range(first, first + 50):
        case = fuzz_cases.draw(number)
        try:
            with np.errstate(all="ignore"):
                fuzz_checks.run(case)
        except Exception as error:
            raise AssertionError(f"python tests/campaigns/fuzz_api.py --case {number}: {case.as_json()}") from error


@pytest.mark.parametrize("index", range(len(KEPT)))
def test_cases_that_failed_once(isa, index):
    case = Case.from_json(KEPT[index])
    case.isa = isa
    with np.errstate(all="ignore"):
        fuzz_checks.run(case)


def test_cases_are_kept_as_text():
    for number in range(200):
        case = fuzz_cases.draw(number)
        assert Case.from_json(case.as_json()) == case
        assert fuzz_cases.valid(case)


# ---- The oracle's bounds --------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["rnn_tanh", "rnn_relu", "lstm", "gru", "gru_before"])
def test_bounded_numbers_have_the_values_of_the_oracle(kind):
    """Their bounds are far below the numbers, and cover what the same equations give in float32."""
    case = Case(seed=5, kind=kind, dtype="float32", I=6, H=9, T=5, N=4, state=True, lengths=True, resets=True)
    setting = Setting(case)
    options, rng = setting.layer._options(0), np.random.default_rng(1)
    d_output = rng.standard_normal((5, 4, 9))
    results = []
    for dtype in (np.float64, np.float32):
        p = {name: setting.layer.parameters[name + "_l0"].astype(dtype) for name in NAMES
             if name + "_l0" in setting.layer.parameters}
        y, h_n, _, _, cache = reference.forward(kind, p, setting.x, *(part[0] for part in setting.state),
                                                lengths=setting.lengths, reset_mask=setting.resets, options=options)
        results.append((y, h_n, *reference.backward(cache, d_output.astype(dtype))))
    by = Arithmetic(np.float32, 30)
    form, p = BoundedForm(kind, options, by), parameters_of(setting.layer.parameters, "_l0", by)
    series, last, steps = walk(kind, form, p, by.exact(setting.x), [by.exact(part[0]) for part in setting.state],
                               setting.lengths, setting.resets, False)
    zeros = [by.zeros(part[0].shape) for part in setting.state]
    dx, d_first, gradients = walk_back(kind, form, p, steps, setting.x.shape, by.exact(d_output), zeros)
    for bounded, exact, single in zip((series[0], last[0], dx, d_first[0]), results[0], results[1], strict=False):
        assert_same_bits(bounded.value, exact)
        assert np.all(np.abs(single - exact) <= bounded.error)
        assert np.all(bounded.error < 1e-3 * np.maximum(1, np.abs(exact)))
    for name, bounded in gradients.items():
        np.testing.assert_allclose(bounded.value, results[0][-1][name], rtol=1e-12, atol=1e-12)
        assert np.all(np.abs(results[1][-1][name] - bounded.value) <= bounded.error)


# ---- It finds faults ------------------------------------------------------------------------------------

def changed(monkeypatch, owner, name, change):
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: change(real, *args, **options))


def state_forgotten(monkeypatch):
    """`out` may overlap the initial state, and nobody looks."""
    changed(monkeypatch, validation, "writable_in_place", lambda real, out, x, mask, *states: real(out, x, mask))


def length_too_long(monkeypatch):
    def lengthened(real, lengths, T, N):
        falling, order = real(lengths, T, N)
        return None if falling is None else np.minimum(falling + 1, T), order

    changed(monkeypatch, recurrent_base.check, "row_lengths", lengthened)


def clip_forgotten(monkeypatch):
    monkeypatch.setattr(recurrent_base.Recurrent, "clip", property(lambda self: None, lambda self, value: None),
                        raising=False)


def last_bits_lost(monkeypatch):
    """A relative error of 2e-6 in what the compiled pass gives."""
    def after(real, *args, **options):
        result = real(*args, **options)
        args[6][...] *= 1 + 2e-6
        return result

    changed(monkeypatch, _core, "forward_layer", after)


def snapshot_of_zeros(monkeypatch):
    changed(monkeypatch, streams.Stream, "_set_state", lambda real, self, h, c: real(self, h * 0, c))


FAULTS = {      # and the cases that could show it
    state_forgotten: lambda case: "out" in case.checks and case.state and case.seed > 3100,
    length_too_long: lambda case: case.lengths,
    clip_forgotten: lambda case: case.clip,
    last_bits_lost: lambda case: "oracle" in case.checks,
    snapshot_of_zeros: lambda case: "stream" in case.checks,
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_faults_are_found(monkeypatch, fault):
    fault(monkeypatch)
    for number in range(1000, 9000):
        case = fuzz_cases.draw(number)
        if not FAULTS[fault](case):
            continue
        try:
            with np.errstate(all="ignore"):
                fuzz_checks.run(case)
        except (AssertionError, ValueError):
            return
    raise AssertionError("not found in 8,000 cases")


WORKER = """
    import sys
    if "--worker" in sys.argv:
        sys.path.append({support!r})
        import fuzz_checks
        real = fuzz_checks.run

        def run(case):
            if case.seed == 3:
                raise AssertionError("a fault")
            if case.seed == 7:
                import os
                os.abort()
            real(case)
        fuzz_checks.run = run
"""


@pytest.mark.slow
@pytest.mark.parametrize("faulty", [False, True])
def test_campaign(tmp_path, faulty):
    """Its closing line and exit status; what fails or dies is kept with the command that repeats it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if faulty:
        support = str(CAMPAIGN.parents[1] / "support")
        (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(WORKER).format(support=support))
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run([sys.executable, CAMPAIGN, "--cases", "20", "--workers", "1", "--findings",
                            tmp_path / "findings"], capture_output=True, text=True, env=environment, timeout=120)
    last = ended.stdout.splitlines()[-1]
    assert ended.returncode == faulty, ended.stdout + ended.stderr
    assert last.startswith("20 cases") and f"{2 * faulty} findings" in last
    kept = sorted(path.name for path in (tmp_path / "findings").glob("*"))
    assert kept == (["3.txt", "7.txt"] if faulty else [])
    if faulty:
        assert "--case 3" in (tmp_path / "findings" / "3.txt").read_text()
        assert "status -6" in (tmp_path / "findings" / "7.txt").read_text()
