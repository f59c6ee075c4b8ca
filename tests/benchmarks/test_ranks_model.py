"""The cost model of benchmarks/ranks.py against sums by hand."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from ranks import Network, Rates, hidden_by_overlap, update_time

RATES, NETWORK = Rates(sums=1e9, optimizer=5e8, call=1e-6), Network(latency=1e-5, bandwidth=1e8)


def test_one_rank_computes_everything_and_sends_nothing():
    parts = update_time(1, 16, 1000, 0.25, 0.5, RATES, NETWORK)
    assert parts == pytest.approx({"data": 0.5, "compute": 4.0, "sums": 16 * 4e-6, "optimizer": 8e-6})


@pytest.mark.parametrize("ranks, own, nodes, most, messages", [(2, 8, 2, 1, 4), (4, 4, 4, 1, 10), (3, 6, 7, 3, 8),
                                                               (16, 1, 16, 1, 38)])
def test_several_ranks(ranks, own, nodes, most, messages):
    """Three ranks have shards 0-5, 6-10 and 11-15: the subtrees (0-3, 4-5), (6-7, 8-9, 10), (11, 12-15)."""
    parts = update_time(ranks, 16, 1000, 0.25, 0.5, RATES, NETWORK)
    assert parts["compute"] == own * 0.25 and parts["sums"] == pytest.approx(own * 4e-6)
    assert parts["latency"] == pytest.approx(messages * 1e-5)
    assert parts["transfer"] == pytest.approx((most + 1) * 4e-5 * (ranks - 1) / ranks)
    assert parts["tree"] == pytest.approx(nodes * 4e-6 / ranks + (nodes + 2 * ranks) * 1e-6)


def test_what_overlap_could_hide():
    assert hidden_by_overlap({"transfer": 1.0}, 0.3, 1) == 0
    assert hidden_by_overlap({"transfer": 1.0}, 0.3, 2) == pytest.approx(0.1)
    assert hidden_by_overlap({"transfer": 0.1}, 0.3, 2) == pytest.approx(0.05)
    assert hidden_by_overlap({}, 0.3, 2) == 0
