"""`Wake`: has a thread look up that waits for descriptors."""

from __future__ import annotations

import threading
from contextlib import suppress
from multiprocessing import connection


class Wake:
    """One more descriptor to wait for, there as long as somebody does.

    Attributes
    ----------
    asleep : bool
        Set by who waits before it looks for the last time; who then rings does not ring in vain.
    """

    def __init__(self) -> None:
        self.asleep = False
        self._lock = threading.Lock()
        self._reader: connection.Connection[bytes, bytes] | None = None
        self._writer: connection.Connection[bytes, bytes] | None = None

    def open(self) -> None:
        """Somebody is about to wait."""
        with self._lock:
            self._reader, self._writer = connection.Pipe(duplex=False)

    def close(self) -> None:
        """Nobody does any more."""
        with self._lock:
            for end in (self._reader, self._writer):
                if end is not None:
                    end.close()
            self._reader = self._writer = None

    def fileno(self) -> int:
        """What to wait for."""
        assert self._reader is not None  # noqa: S101  # for the type checker
        return self._reader.fileno()

    def ring(self) -> None:
        """Have the one who waits look."""
        if self.asleep:
            with self._lock, suppress(OSError):
                if self._writer is not None and self.asleep:
                    self.asleep = False
                    self._writer.send_bytes(b"\0")

    def clear(self) -> None:
        """Take what was rung."""
        if self._reader is not None:
            while self._reader.poll():
                self._reader.recv_bytes()
