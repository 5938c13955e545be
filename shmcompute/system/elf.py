"""What machine code calls, as its object file tells: in ELF, Linux's format.

See the System V ABI, chapter 4, "Object Files".
"""

from __future__ import annotations

import numpy as np

_HEADER = np.dtype(
    [("magic", "S4"), ("class", "u1"), ("order", "u1"), ("", "V34"), ("sections", "<u8"),
     ("flags", "<u4"), ("size", "<u2"), ("", "V4"), ("section_size", "<u2"), ("count", "<u2"),
     ("names", "<u2")]
)  # fmt: skip
_SECTION = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"),
     ("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entry", "<u8")]
)  # fmt: skip
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
     ("size", "<u8")]
)  # fmt: skip
_SYMBOLS = 2  # the type of a section that is a table of symbols


def undefined_symbols(code: bytes) -> list[str] | None:
    """The names that an object file leaves to others; None if it is no ELF of 64 bits.

    Raises
    ------
    ValueError, IndexError
        If it is cut off.
    """
    if code[:6] != b"\x7fELF\x02\x01":  # 64 bits, the least byte first
        return None
    header = np.frombuffer(code, _HEADER, 1)[0]
    sections = np.frombuffer(code, _SECTION, int(header["count"]), int(header["sections"]))
    found = []
    for table in sections[sections["type"] == _SYMBOLS]:
        count = int(table["size"]) // _SYMBOL.itemsize
        symbols = np.frombuffer(code, _SYMBOL, count, int(table["offset"]))
        names = sections[int(table["link"])]
        start = int(names["offset"])
        for place in symbols["name"][symbols["section"] == 0]:
            first = start + int(place)
            found.append(code[first : code.index(b"\0", first)].decode())
    return [name for name in found if name]
