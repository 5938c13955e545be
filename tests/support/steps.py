"""Interrupts at each step of a call at which Python looks at signals."""

from __future__ import annotations

import dis
import sys

# After these the interpreter looks whether a signal came (CPython's CHECK_EVAL_BREAKER).
_CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD")


def interrupted(work, check, every=1, within=""):
    """How many interrupts `work()` took, one a call; `check()` comes while each is on its way.

    They come at one step after the other, or at each of so many, of code whose files' names begin
    with `within`: executors of the standard library do not survive one at each of their own.
    """
    taken = 0
    while _run(work, check, 1 + taken * every, within):
        taken += 1
    return taken


def _run(work, check, step, within):
    """Whether there was such a step."""
    left, last = step, {}

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(within):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "call":
            last.pop(id(frame), None)
        elif event == "opcode":
            name, line = last.get(id(frame), ("", None))
            # An interrupt after a call counts as raised by it. We can raise at the next step only,
            # which after the last call of a `try` may be out of it: there we don't.
            inside = not name.startswith("CALL") or line == frame.f_lineno
            if name.startswith(_CHECKED) and inside:
                left -= 1
                if not left:
                    raise KeyboardInterrupt
            last[id(frame)] = dis.opname[frame.f_code.co_code[frame.f_lasti]], frame.f_lineno
        return trace

    sys._getframe().f_trace_opcodes = True  # before settrace(), or 3.12 and later ignore it
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        sys.settrace(before)
        check()
    finally:
        sys.settrace(before)
    return left <= 0  # Python ignores what is raised in finalizers
