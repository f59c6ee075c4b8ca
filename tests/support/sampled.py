"""A plugin of pytest: of each test function FASTRNN_SAMPLE cases at most, spread evenly over its parameters.

For builds on which the whole suite takes hours: PYTHONPATH=tests/support FASTRNN_SAMPLE=8 pytest -p sampled.
"""

import collections
import os


def pytest_collection_modifyitems(items):
    most, functions, kept = int(os.environ["FASTRNN_SAMPLE"]), collections.defaultdict(list), set()
    for item in items:
        functions[item.nodeid.partition("[")[0]].append(item)
    for cases in functions.values():
        count = min(most, len(cases))
        kept.update(cases[number * len(cases) // count] for number in range(count))
    items[:] = [item for item in items if item in kept]
