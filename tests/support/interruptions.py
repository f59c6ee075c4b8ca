"""Ctrl-C at a chosen instruction of the library's own Python code, as a signal handler may raise at any of them."""

import sys
from pathlib import Path

import fastrnn

PACKAGE = str(Path(fastrnn.__file__).parent)


def interrupted_at(number, call):
    """Make a call that the `number`-th instruction of the library's code interrupts; False where it has no so many."""
    count, before = 0, sys.gettrace()

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def interrupted_everywhere(call, check, stride=1):
    """Interrupts a call at every instruction, or at every `stride`-th, and checks what it leaves each time.

    Returns how many times.
    """
    number = 1
    while interrupted_at(number, call):
        check()
        number += stride
    check()
    return number // stride
