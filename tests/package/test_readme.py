"""The README's Python runs as it stands, one block after the other, but for those about other packages' files."""

import re
from pathlib import Path

from child import python

README = Path(__file__).parents[2] / "README.md"
ELSEWHERE = "model.pt", "accelerate("       # a file, a model that the reader has


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S)
    here = [block for block in blocks if not any(word in block for word in ELSEWHERE)]
    assert len(here) >= 4 and len(blocks) - len(here) == 2
    python("\n".join(here), prelude="", timeout=240)
