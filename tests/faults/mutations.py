"""Segments, files and handles that lie: what an attacher may find, each made from a seed.

A process of its own runs them, for a crash must be counted, not suffered:
``python tests/faults/mutations.py FIRST COUNT NOTE`` writes the seed it is at into NOTE and prints
its counts as JSON. ``trial(seed)`` runs one again.

The oracle of what was attached is NumPy: it must read the same header, or the same file, alike.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import io
import json
import os
import pickle
import random
import re
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from shmcompute import storage
from shmcompute.errors import StorageError
from shmcompute.storage import mp_array, shm
from shmcompute.storage import npy_file as npy_files
from shmcompute.storage.layout import MAGIC, RECORD, VERSION, Layout, padded, trailer

LAYOUTS = [
    Layout.of((3, 4), "<f8"),
    Layout.of((2, 3), ">i4", "F"),
    Layout.of((), "?"),
    Layout.of((0, 5), "<c16"),
    Layout.of((5,), "<U3"),
    Layout.of((2,), "<M8[ns]"),
    Layout.of((2, 2), [("a", "<f4"), ("λ", [("b", "i1", (2, 3)), ("c", "S5")])]),
    Layout.of((600,), "<i8"),
]
EXTREMES = [0, 1, 7, 4095, 4096, 4097, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62]
EXTREMES += [2**63 - 1, 2**63, 2**64 - 1]
NUMBERS = [*map(str, EXTREMES), "-1", "-0", "0x10", "1e3", "True", "None", "3L", "9" * 5000, "1_0"]
DESCRS = [
    "'O'", "'|O8'", "'<f8'", "'f8,i4'", "'(2,3)f8'", "'S0'", "'V0'", "'U'", "'S2147483647'", "'T'",
    "'<M8[ns]'", "'M8[0s]'", "'float64'", "''", "'a5'", "'\\\\d'", "'\\N{DIGIT ONE}'", "b'<f8'",
    "7", "('<f8', (2,))", "('<f8', (-1,))", "[]", "[('a', 'O')]", "[('a', '<f8'), ('a', '<f8')]",
    "[('', '|V4'), ('x', '<i4')]", "[(('t', 'x'), '<i4')]", "[('x', '<i4', (2**31,))]",
    "[('x', '<i4', (0,))]", "[('x', [('y', [('z', 'O')])])]", "{'names': ['a'], 'formats': ['O']}",
    "np.float64", "__import__('os').abort()", "(lambda: 1)()", "'\\x00'", "'\u00fc'", "'\u03bb'",
]  # fmt: skip
BOMBS = [
    lambda n: "-" * n + "1", lambda n: "1+" * n + "1", lambda n: "a" + "()" * n, lambda n: "[" * n,
    lambda n: "(" * n + ")" * n, lambda n: "not " * n + "1", lambda n: "lambda:" * n + "1",
    lambda n: "a" + ".a" * n, lambda n: "'a'" * n, lambda n: "9" * n, lambda n: "f'{" * n,
    lambda n: "[('a'," * n + "'<f8'" + ")]" * n, lambda n: " " * n, lambda n: "'" * n,
    lambda n: "\\\n" * n, lambda n: "#" * n, lambda n: "\0" * n,
    lambda n: "{1:" * n + "1" + "}" * n,
]  # fmt: skip
LARGEST = 2**40  # bytes of a file, most of it a hole
BOMB_SIZES = (2, 15, 33, 200, 5000, 40_000, 400_000)


@dataclass
class Content:
    """A file: what stands at its start and its end, and how long it is. The rest is a hole."""

    head: bytes
    tail: bytes
    size: int
    intact: bool = False

    @contextmanager
    def at(self, path):
        """It stands at this path, locked: a reaper of another program would take it away."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            os.pwrite(fd, self.head[: self.size], 0)
            os.ftruncate(fd, self.size)
            kept = self.tail[max(0, len(self.tail) - self.size) :]
            os.pwrite(fd, kept, self.size - len(kept))
            yield
        finally:
            os.close(fd)
            os.unlink(path)


def text_of(parts):
    """A header's text."""
    return "{" + ", ".join(f"'{name}': {said}" for name, said in parts.items()) + ", }" + " " * 8


def parts_of(layout):
    """What a header tells of a layout, as text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        descr = repr(npy.dtype_to_descr(layout.dtype))
    return {"descr": descr, "fortran_order": str(layout.fortran), "shape": str(layout.shape)}


def damaged_text(rng, parts):
    """A header's text, with other words, numbers, brackets or bytes in it."""
    for _ in range(rng.choice([0, 1, 1, 2])):
        match rng.randrange(4):
            case 0:
                parts["shape"] = "(" + _some(rng, NUMBERS, 70) + ")"
            case 1:
                parts["descr"] = rng.choice(DESCRS)
            case 2:
                parts["fortran_order"] = rng.choice(["True", "False", "1", "'C'"])
            case 3:
                bomb = rng.choice(BOMBS)(rng.choice(BOMB_SIZES))
                parts[rng.choice(["shape", "descr", "more"])] = bomb
    text = text_of(parts)
    at = rng.randrange(len(text))
    match rng.randrange(6):
        case 0:
            odd = rng.choice(["\0", "\u00ff", "\u20ac", "'", "(", "L", "\ud800"])
            return text[:at] + odd + text[at:]
        case 1:
            return text[:at] + text[at + rng.randint(1, 9) :]
        case 2:
            return rng.choice(["{}", "", "[]", text * 2, text[::-1], "{**{}}", text.rstrip()])
    return text


def _some(rng, words, most):
    count = rng.choice([0, 1, 1, 2, 2, 3, most])
    return "".join(f"{rng.choice(words)}, " for _ in range(count))


def packed_header(rng, text):
    """Text with a prologue before it: version and length, which may lie."""
    version = rng.choice([2] * 12 + [1, 1, 1, 3, 3, 0, 4, 255])
    body = text.encode("utf-8" if version == 3 else "latin-1", "replace")
    told = len(body) if rng.random() < 0.9 else rng.choice(EXTREMES)
    prefix = npy.MAGIC_PREFIX + bytes([version, 0 if rng.random() < 0.97 else 1])
    if version == 1:
        return prefix + struct.pack("<H", told % 2**16) + body
    return prefix + struct.pack("<I", told % 2**32) + body


def claimed_bytes(rng, header):
    """How many bytes of data a record claims: those of its header if NumPy makes them out."""
    try:
        return numpys(header).nbytes if rng.random() < 0.9 else rng.choice(EXTREMES)
    except Exception:
        return rng.choice([96, *EXTREMES])


def numpys(header):
    """The layout that NumPy reads out of a header, beyond its own limit of length."""
    if len(header) > 10_000:
        raise ValueError("not for NumPy: it might crash")
    stream = io.BytesIO(header)
    version = npy.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version == (3, 0):  # NumPy has no public reader for it, and it differs in encoding only
            text = header[npy.MAGIC_LEN + 4 :].decode().encode("ascii", "backslashreplace")
            stream = io.BytesIO(struct.pack("<I", len(text)) + text)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        return Layout.of(shape, dtype, "F" if fortran else "C")


def segment(rng):
    """A segment of shared memory, damaged or not."""
    layout = rng.choice(LAYOUTS)
    head, tail = rng.randbytes(padded(layout.nbytes)), trailer(layout)
    whole = Content(head, tail, len(head) + len(tail), intact=True)
    match rng.randrange(10):
        case 0:
            return whole
        case 1 | 2:
            return damaged_bytes(rng, whole)
        case 3:
            return with_record(rng, whole)
        case _:
            return with_header(rng, layout)


def damaged_bytes(rng, whole):
    """Bits flipped, bytes overwritten, cut off or added; nothing recomputed."""
    tail, size = bytearray(whole.tail), whole.size
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 4)):
                tail[rng.randrange(len(tail))] ^= 1 << rng.randrange(8)
        case 1:
            at = rng.randrange(len(tail))
            tail[at : at + 16] = rng.randbytes(len(tail[at : at + 16]))
        case 2:
            keep = rng.randrange(whole.size)
            return Content(*_cut(whole.head + whole.tail, keep))
        case 3:
            noise = rng.randbytes(rng.choice([0, 1, 27, 28, 29, 4096, 9000]))
            return Content(noise, b"", len(noise))
        case 4:
            size = rng.choice([whole.size + 1, whole.size + 4096, 2**33, LARGEST])
    return Content(whole.head, bytes(tail), size)


def _cut(content, keep):
    return content[:keep], b"", keep


def with_record(rng, whole):
    """One field of the record at an extreme."""
    fields = list(RECORD.unpack(whole.tail[-RECORD.size :]))
    at = rng.randrange(5)
    widths = (64, 32, 32, 32)
    fields[at] = rng.randbytes(8) if at == 4 else rng.choice(EXTREMES) % 2 ** widths[at]
    size = rng.choice([whole.size, min(LARGEST, padded(fields[0]) + len(whole.tail))])
    tail = whole.tail[: -RECORD.size] + RECORD.pack(*fields)
    return Content(whole.head, tail, size)


def with_header(rng, layout):
    """Another header, with length and checksum to match, so that it gets as far as the parser."""
    header = packed_header(rng, damaged_text(rng, parts_of(layout)))
    data = claimed_bytes(rng, header) % 2**64
    checksum = zlib.crc32(header) if rng.random() < 0.95 else rng.getrandbits(32)
    length = len(header) if rng.random() < 0.95 else rng.choice(EXTREMES) % 2**32
    tail = header + RECORD.pack(data, length, checksum, VERSION, MAGIC)
    tail = tail.rjust(padded(len(tail)), b"\0")
    size = padded(data) + len(tail)
    if rng.random() < 0.1:
        size += rng.choice([-4096, -1, 1, 4096])
    return Content(b"", tail, max(len(tail) - 1, min(size, LARGEST)))


def npy_file(rng):
    """A ``.npy``, damaged or not."""
    layout = rng.choice(LAYOUTS)
    header = packed_header(rng, damaged_text(rng, parts_of(layout)))
    match rng.randrange(10):
        case 0:
            buffer = io.BytesIO()
            npy.write_array(buffer, np.zeros((3, 2), "<f4"))
            return Content(buffer.getvalue(), b"", len(buffer.getvalue()), intact=True)
        case 1:
            header = bytearray(header)
            for _ in range(rng.randint(1, 4)):
                header[rng.randrange(min(len(header), 200))] ^= 1 << rng.randrange(8)
            header = bytes(header)
        case 2:
            header = rng.randbytes(rng.randrange(300))
        case 3:
            parts = {**parts_of(layout), "descr": "'|O'"}
            header = packed_header(rng, text_of(parts)) + pickle.dumps({})
    size = len(header) + min(LARGEST, claimed_bytes(rng, header))
    if rng.random() < 0.2:
        size = max(0, size - rng.choice([1, 8, 4096, 2**40]))
    return Content(header, b"", size)


class Wrong(Exception):
    """What must not be: an attach that is none, or an error of a wrong kind."""


def attach_segment(rng, folder):
    """Shared memory under a name of ours."""
    name, content = f"fuzz_{os.getpid()}", segment(rng)
    with content.at(shm.FOLDER / name):
        return check_segment(name, content)


def check_segment(name, content):
    """Attach to what stands under a name."""
    with _expected(name, content):
        found, array = storage.attach(name)
        _check_bounds(found, array, content.size)
        end = content.tail or content.head
        length = RECORD.unpack(end[-RECORD.size :])[1]
        start = len(end) - RECORD.size - length
        _check_alike(found.layout, array, numpys(end[start : start + length]))
        return "attached"
    return "refused"


def open_npy(rng, folder):
    """A file in a folder of ours."""
    path, content = folder / "fuzz.npy", npy_file(rng)
    with content.at(path):
        return check_npy(path, content, rng.choice(npy_files.MODES))


def check_npy(path, content, mode):
    """Open what stands at a path."""
    with _expected(str(path), content):
        found, array = storage.open_file(path, mode)
        _check_bounds(found, array, content.size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = np.load(path, mmap_mode="r", max_header_size=1 << 20)
        order = "F" if found.layout.fortran else "C"
        _check_alike(found.layout, array, Layout.of(theirs.shape, theirs.dtype, order))
        if array.size and array.strides != theirs.strides:
            raise Wrong(f"strides {array.strides}; NumPy has {theirs.strides}")
        return "attached"
    return "refused"


def map_handle(rng, folder):
    """Names and handles that nobody gave out."""
    names = ["../x", "/", ".", "..", "a/b", "\0", "x\0y", "x" * 300, "\u00fc" * 40, "\udcff", " "]
    names += ["/dev/zero", "/etc/passwd", "/proc/self/mem", "/dev/shm", "", f"none_{os.getpid()}"]
    names += [str(folder), str(folder / "none"), "C:\\x", "%s", "shmc_" + rng.randbytes(4).hex()]
    name, serial = rng.choice(names), rng.choice([-1, *EXTREMES])
    numbers = [-1, 0, 3, os.getpid(), 2**31, 2**63, 2**70]
    match rng.randrange(4):
        case 0:
            handle = shm.ShmHandle(name, serial)
        case 1:
            handle = npy_files.FileHandle(name, rng.choice(npy_files.MODES), (serial, serial))
        case 2:
            layout = rng.choice([*LAYOUTS, Layout((2**40, 2**20), np.dtype("f8"))])
            memfd = os.memfd_create("fuzz")
            found = os.fstat(memfd)
            handle = mp_array.ArrayHandle(
                "x",
                layout,
                rng.choice([os.getpid(), *numbers]),
                rng.choice([memfd, memfd, memfd, *numbers]),
                (found.st_dev, found.st_ino),
                rng.choice([0, 1, 4096, -1, -4096, *numbers]),
            )
            try:
                return _refused(handle.map, StorageError)
            finally:
                os.close(memfd)
        case 3:
            call = rng.choice([storage.attach, lambda path: storage.open_file(path, "r")])
            return _refused(lambda: call(name), (StorageError, ValueError))
    return _refused(handle.map, (StorageError, ValueError))


def _refused(call, kinds):
    try:
        call()
    except kinds:
        return "refused"
    raise Wrong("mapped what nobody gave out")


KINDS = (attach_segment, attach_segment, open_npy, open_npy, map_handle)


@contextmanager
def _expected(name, content):
    """An error that names the thing, and none for what is whole."""
    try:
        yield
    except StorageError as error:
        if repr(name) not in str(error):
            raise Wrong(f"the error does not name {name!r}: {error}") from error
        if content.intact:
            raise Wrong(f"refused what is whole: {error}") from error


def _check_bounds(found, array, size):
    """All bytes lie in the file, can be read, and hold no objects."""
    if array.dtype.hasobject or array.nbytes > size:
        raise Wrong(f"{array.dtype} {array.shape}: {array.nbytes} bytes of a file of {size}")
    start = array.__array_interface__["data"][0]
    if start != found.address:
        raise Wrong("it does not start where its segment does")
    if array.nbytes:
        ctypes.string_at(start, 1)
        ctypes.string_at(start + array.nbytes - 1, 1)
    if array.itemsize > 4096:
        return
    with suppress(Exception):  # noise may be no text or no date; NumPy says so, if it lives
        hash(array.dtype), array.dtype == np.dtype("M8[ns]"), repr(array.flat[0])


def _check_alike(layout, array, theirs):
    contiguous = array.flags.f_contiguous if layout.fortran else array.flags.c_contiguous
    if layout != theirs or (layout.shape, layout.dtype) != (array.shape, array.dtype):
        raise Wrong(f"{layout} was attached as {array.shape} {array.dtype}; NumPy reads {theirs}")
    if not contiguous:
        raise Wrong(f"{layout} was attached in another order")


def trial(seed, folder=None):
    """One attempt; what came of it."""
    rng = random.Random(seed)
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return trial(seed, Path(made))
    return KINDS[seed % len(KINDS)](rng, folder)


def main(first, count, note):
    counts, wrong = Counter(), []
    with tempfile.TemporaryDirectory() as folder, open(note, "wb", buffering=0) as file:
        trial(0, Path(folder))
        before = _held()
        for seed in range(first, first + count):
            os.pwrite(file.fileno(), b"%020d" % seed, 0)
            try:
                counts[trial(seed, Path(folder))] += 1
            except Exception as error:
                counts["wrong"] += 1
                wrong.append(f"trial({seed}): {type(error).__name__}: {error}"[:500])
        gc.collect()
        after = _held()
    leaked = {what: after[what] - before[what] for what in before}
    print(json.dumps({**counts, "failures": wrong[:20], **leaked}))


def _held():
    gc.collect()
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be the parent's, too
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mappings": len(storage.live()),
        "peak": int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10,  # MiB
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
