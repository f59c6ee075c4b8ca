"""A slice of the campaign of kills, tests/campaigns/scale_kills.py."""

import pytest
import scale_kills

pytest.importorskip("pyarrow")


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(tmp_path):
    counts = scale_kills.Contest(tmp_path, ["none", "processes"], 1, lambda *text, flush: None).run(4)
    assert counts["kills"] >= 4 and counts["runs"] >= 1 and not counts["wrong"]
