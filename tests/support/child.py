"""Scripts in a Python process of their own: for what must not touch the suite's process, or might end it."""

import os
import subprocess
import sys
import textwrap

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import fastrnn
from fastrnn import _core
signal.signal(signal.SIGINT, signal.default_int_handler)     # a suite that runs in the background has it ignored
"""


def python(script, *, prelude=PRELUDE, timeout=60, **environment):
    """What the script prints. A crash, an exception or `timeout` seconds fail the test, and show its stderr."""
    done = attempt(script, prelude=prelude, timeout=timeout, **environment)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def attempt(script, *, prelude=PRELUDE, timeout=60, **environment):
    """The finished process; environment variables given as None are taken out."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run([sys.executable, "-c", prelude + textwrap.dedent(script)], env=variables, timeout=timeout,
                          capture_output=True, text=True)
