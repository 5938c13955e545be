"""A coverage-guided fuzzer of all that reads what others wrote: run by hand, see CONTRIBUTING.md.

    python tests/faults/fuzz_trailer.py CORPUS -max_total_time=600

It needs `atheris` (``pip install atheris``). What it finds is kept as a ``crash-*`` file; give
that in place of CORPUS to run it alone. The first byte of an input chooses what it is:

====  =============================================================================
0, 4  the text of a header, behind a prologue and before a record that match it
1     a header, before a record that matches it
2     the end of a segment, as it is
3     a ``.npy``
====  =============================================================================

So checksums and lengths, which a fuzzer does not guess, do not keep it out of the parser.

CONTRIBUTING.md says how long it ran, and what it found.
"""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["shmcompute.storage", "ast", "numpy.lib._format_impl"]):
    import mutations

    from shmcompute.storage import shm
    from shmcompute.storage.layout import MAGIC, RECORD, VERSION, padded
    from shmcompute.storage.npy_header import LONGEST

NAME = f"fuzz_{os.getpid()}"
PATH = shm.FOLDER / NAME
MOST = 1 << 30  # bytes of data in a segment: a hole


def content(data: bytes) -> mutations.Content:
    """The file that an input stands for."""
    kind, rest = data[0] % 5, data[1:]
    if kind in (2, 3):
        return mutations.Content(rest, b"", len(rest))
    header = _prologue(rest) + rest if kind in (0, 4) else rest
    try:
        claimed = mutations.numpys(header).nbytes
    except Exception:
        claimed = 0
    claimed = min(claimed, MOST)
    tail = header + RECORD.pack(claimed, len(header), zlib.crc32(header), VERSION, MAGIC)
    tail = tail.rjust(padded(len(tail)), b"\0")
    return mutations.Content(b"", tail, padded(claimed) + len(tail))


def _prologue(text: bytes) -> bytes:
    return b"\x93NUMPY\x02\x00" + min(len(text), LONGEST).to_bytes(4, "little")


def one(data: bytes) -> None:
    """Attach to it; any error but a typed one is a find."""
    if not data:
        return
    made = content(data)
    with made.at(PATH):
        if data[0] % 5 == 3:
            mutations.check_npy(PATH, made, "r")
        else:
            mutations.check_segment(NAME, made)


def seeds(folder: Path) -> None:
    """Put what is whole, and what lies, into a new corpus."""
    for number, layout in enumerate(mutations.LAYOUTS):
        text = mutations.text_of(mutations.parts_of(layout)).encode("latin-1", "replace")
        (folder / f"text-{number}").write_bytes(b"\0" + text)
        (folder / f"header-{number}").write_bytes(b"\1" + _prologue(text) + text)
        (folder / f"npy-{number}").write_bytes(b"\3" + _prologue(text) + text + bytes(64))
        (folder / f"tail-{number}").write_bytes(
            b"\2" + bytes(padded(layout.nbytes)) + mutations.trailer(layout)
        )
    for number, descr in enumerate(mutations.DESCRS):
        parts = {"descr": descr, "fortran_order": "False", "shape": "(3,)"}
        text = mutations.text_of(parts).encode("latin-1", "replace")
        (folder / f"descr-{number}").write_bytes(b"\0" + text)


def main() -> None:
    for argument in sys.argv[1:]:
        if not argument.startswith("-") and not Path(argument).is_file():
            folder = Path(argument)
            folder.mkdir(parents=True, exist_ok=True)
            seeds(folder)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
