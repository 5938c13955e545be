"""`Finding`: one thing that was looked at, how it is, and what would make it better."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes
    ----------
    check : str
        What was looked at.
    found : str
        How it is.
    state : str
        `OK`; `WARNING`: all works, but slower, or less of it than might be; `BROKEN`: calls fail.
    remedy : str
        What to do about it, if anything is to be done.
    """

    check: str
    found: str
    state: str = OK
    remedy: str = ""


def judged(check: str, found: str, *, warn: bool, remedy: str) -> Finding:
    """A finding that is a warning, with a remedy, only if so."""
    return Finding(check, found, WARNING, remedy) if warn else Finding(check, found)


def human(size: float) -> str:
    """A size in bytes, in a unit in which it is short.

    Examples
    --------
    >>> human(512), human(3 << 19)
    ('512 B', '1.5 MiB')
    """
    power = min((int(size).bit_length() - 1) // 10, 4)
    return f"{size / 1024**power:.1f} {' KMGT'[power]}iB" if power > 0 else f"{size:.0f} B"
