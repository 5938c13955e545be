"""How commands write: lines that are flushed, and tables."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence


def write(*lines: str) -> None:
    """Write lines to stdout and flush: a forked worker must not inherit and repeat them."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines with columns as wide as their widest cell.

    Parameters
    ----------
    rows : sequence of sequences of str
        All of one length.
    right : collection of int
        Numbers of the columns that are flush right.

    Examples
    --------
    >>> print(*table([("name", "size"), ("a", "10")], right=(1,)), sep="|")
    name  size|a       10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def padded(number: int, cell: str) -> str:
        return cell.rjust(widths[number]) if number in right else cell.ljust(widths[number])

    return ["  ".join(padded(*cell) for cell in enumerate(row)).rstrip() for row in rows]
