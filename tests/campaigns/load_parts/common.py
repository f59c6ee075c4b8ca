"""What the parts of load.py share: children of their own, figures, and what was missed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

COMMAND = Path(__file__).resolve().parents[1] / "load.py"
ROOT = COMMAND.parents[2]


class Report:
    """Prints figures beside what they may be at most, and remembers what was missed."""

    def __init__(self):
        self.missed, self.met = [], 0

    def note(self, text):
        print(text, flush=True)

    def judge(self, name, passed, text):
        """One line that ends in "met" or "MISSED"."""
        self.note(f"  {name}: {text}: {'met' if passed else 'MISSED'}")
        if passed:
            self.met += 1
        else:
            self.missed.append(name)


def child(part, name, *arguments, threads=1, own_group=False, **options):
    """A process that runs a part's function in CHILDREN, with text pipes; Ctrl-C reaches it as it does in a shell."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FASTRNN_NUM_THREADS": str(threads),
                                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, str(COMMAND), "--child", part, name, *map(str, arguments)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                            start_new_session=own_group, **options)


def restore_interrupts():
    """Let SIGINT raise KeyboardInterrupt: a shell's background processes are started with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tell(message):
    """A line to the parent."""
    print(json.dumps(message), flush=True)


def percentile(values, share):
    """The value that a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
