"""The library under load: forks, many threads, Ctrl-C, a stream of a billion steps, clocks that jump, few CPUs.

    python tests/campaigns/load.py                      every part, some hours
    python tests/campaigns/load.py forks interrupts     some parts
    python tests/campaigns/load.py --slice              a little of each, without judging times: within a minute

Each part prints its figures, and a line for each target, which ends in "met" or "MISSED". The exit status is 1 if one
was missed. Linux alone.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

# a checkout built in place is used where fastrnn is not installed
sys.path.append(str(Path(__file__).resolve().parents[2]))
from load_parts.common import Report

PARTS = {
    "forks": "forks while calls use threads: by other threads, signal handlers, multiprocessing, subprocess",
    "threads": "64 threads on one layer, and threads that come and go",
    "interrupts": "Ctrl-C at random moments of every long call",
    "steps": "a stream of a billion steps; counters beyond 32 bits",
    "clocks": "clocks that jump",
    "cpus": "the number of threads by affinity and quota, and two processes side by side",
}


def module(part):
    return importlib.import_module(f"load_parts.{part}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog="parts: " + "; ".join(
        f"{name}: {text}" for name, text in PARTS.items()))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)} (all)")
    parser.add_argument("--slice", action="store_true", help="a little of each part; no times are judged")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--calls", nargs="+", metavar="CALL", help="interrupts: these calls alone")
    parser.add_argument("--interrupts", type=int, metavar="N", help="interrupts: of each call (10)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        part, name, *arguments = options.child
        module(part).CHILDREN[name](*arguments)
        return 0
    if set(options.parts) - PARTS.keys():
        parser.error(f"parts: expected some of {', '.join(PARTS)}")
    report, begin = Report(), time.monotonic()
    for name in options.parts or PARTS:
        report.note(f"{name}: {PARTS[name]}")
        module(name).run(options, report)
    print(f"load: {report.met} targets met, {len(report.missed)} missed{': ' if report.missed else ''}"
          f"{', '.join(report.missed)}; {time.monotonic() - begin:.0f} s")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
