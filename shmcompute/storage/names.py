"""Names of shared-memory segments: which are taken, and new ones."""

from __future__ import annotations

import re
import secrets

PREFIX = "shmc_"
HIDDEN = PREFIX + "warm_"  # of memory whose array was closed
LONGEST = 30  # bytes; the limit of macOS


def check_name(name: object) -> str:
    """`name`, if every platform takes it as the name of a segment."""
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    if not name or name in (".", "..") or re.search(r"[/:\\\x00-\x20\x7f\ud800-\udfff]", name):
        raise ValueError(
            f"name {name!r}: expected 1 to {LONGEST} characters "
            "without '/', ':', backslash, white space or control characters"
        )
    if (length := len(name.encode(errors="replace"))) > LONGEST:
        raise ValueError(
            f"name {name!r} is {length} bytes long; at most {LONGEST} fit on every platform"
        )
    return name


def candidates(name: str | None) -> list[str]:
    """Names to try in turn: the given one once, else random ones (64 bits do not collide twice)."""
    return [name] if name is not None else [PREFIX + secrets.token_hex(8) for _ in range(4)]
