"""Checks a built wheel: at most 5 MB, and usable in an environment that has NumPy alone. Used by ``make wheel``."""

import subprocess
import sys
from pathlib import Path

LIMIT = 5_000_000       # bytes

USE = """
import sys, numpy as np
before = set(sys.modules)       # the environment's own hooks are loaded by now
import fastrnn
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster
output, _ = fastrnn.LSTM(3, 4, rng=0)(np.ones((5, 2, 3), np.float32))
wave = np.sin(np.arange(200.0))
assert RNNForecaster(horizon=3, updates=5).fit(wave).predict().shape == (3,)
assert RNNAnomalyDetector().fit(wave[:, None]).predict(wave[:5, None]).shape == (5,)
third_party = {name.partition(".")[0] for name, module in sys.modules.items() if name not in before
               and "site-packages" in (getattr(module, "__file__", None) or "")} - {"numpy", "fastrnn"}
assert output.shape == (5, 2, 4) and not third_party, third_party
"""

folder = Path(sys.argv[1])
wheel, = folder.glob("*.whl")
size = wheel.stat().st_size
subprocess.run([folder.resolve() / "venv/bin/python", "-c", USE], check=True, cwd=folder)
print(f"{wheel.name}: {size / 1e6:.2f} MB (limit {LIMIT / 1e6:g}), runs with NumPy alone")
sys.exit(size > LIMIT)
