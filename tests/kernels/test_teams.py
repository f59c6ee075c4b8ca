"""Teams: several threads in every step of one pass. The same bits as one thread, however many there are and whichever
comes late; and what a team leaves behind."""

import pytest
from helpers import assert_same_bits, directions, make_state, run, state_sizes
from test_promises import DTYPES, VARIANTS, make_case

import fastrnn
from fastrnn import _core

CPUS = 8                # as many threads as a team may have here, whatever the machine has
# I, H, num_layers, N, bidirectional: a panel or two a thread, an odd number of them, few rows and many, and a call
# whose rows are split among teams.
TEAMS = [(16, 130, 1, 1, False), (5, 100, 2, 4, False), (330, 301, 1, 2, False), (16, 130, 1, 3, True),
         (16, 130, 1, 17, False)]


@pytest.fixture(autouse=True)
def many_cpus():
    _core.assume_cpus(CPUS)
    yield
    _core.assume_cpus(0)


@pytest.mark.parametrize("size", TEAMS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_teams_change_no_bit(isa, variant, dtype, size):
    I, H, num_layers, N, two_ways = size
    T = 2 + 2_500_000 // (N * H * (I + H))         # a call that is worth its threads with one gate, too
    T = min(T, 60) if variant.startswith("rnn") else min(T, 60) // 2
    case = make_case(variant, dtype, (I, H, num_layers, T, N), bidirectional=two_ways)
    layer = case.layer
    d_output = case.rng.standard_normal((T, N, directions(layer) * state_sizes(layer)[0])).astype(dtype)
    d_state = make_state(layer, N, case.rng)
    lengths = case.rng.integers(T // 2, T + 1, N)
    lengths[0] = T
    for options in ({}, {"lengths": lengths}, {"reset_mask": case.rng.random((T, N)) < 0.2}):
        with fastrnn.threads(1):
            expected = run(layer, case.x, case.state, d_output, d_state, **options)
        for threads in (2, 3, 5, 8):
            with fastrnn.threads(threads):
                result = run(layer, case.x, case.state, d_output, d_state, **options)
            assert_same_bits(result, expected)
