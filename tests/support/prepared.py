"""A process that has imported NumPy, Numba and shmcompute, and forks a child for each test program.

A new interpreter takes a second to import them. A child of this server starts in milliseconds, and
else is as one: it has its own arguments, environment, folder and standard streams, an empty
``__main__``, no descriptors of ours, and ends by the interpreter's own way out. It holds no pool,
segment or thread, since the server makes none.

``python prepared.py SOCKET PROGRAM ...`` stands for ``python -c PROGRAM ...``: it hands all that
over, and ends as the program did. So `subprocess` serves for both.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys

QUIET = "-W", "ignore:This process:DeprecationWarning"


class Server:
    """The server as the test process sees it; it ends when its standard input does."""

    def __init__(self, folder):
        import subprocess  # noqa: PLC0415 (this file also runs as a client, which is to start fast)

        self.address = str(folder / "programs")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.address)
        listener.listen()
        here = os.path.dirname(__file__)
        start = (
            f"import sys; sys.path.insert(0, {here!r}); from prepared import serve; exec(serve())"
        )
        with listener:
            self._process = subprocess.Popen(
                [sys.executable, *QUIET, "-c", start, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C at a terminal is for the tests
            )

    def command(self, program, args):
        """What to run for ``python -c program args``."""
        return [sys.executable, "-ISE", __file__, self.address, program, *args]

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        os.unlink(self.address)
        os.rmdir(os.path.dirname(self.address))


def serve():
    """Fork a child for each request; what it is to execute, in a child; nothing, at the end."""
    from shmcompute.backends.processes.worker import preload  # noqa: F401, PLC0415

    listener = socket.socket(fileno=int(sys.argv[1]))
    running = {}  # for each child's descriptor, who asked for it, and its number
    while True:
        askers = {client: pid for client, pid in running.values() if client.fileno() >= 0}
        ready, _, _ = select.select([0, listener, *running, *askers], [], [])
        if 0 in ready:
            return ""
        for client in askers.keys() & ready:  # it is gone, and its program is nobody's
            os.kill(askers[client], signal.SIGKILL)
            client.close()
        for child in running.keys() & ready:
            _answer(*running.pop(child))
            os.close(child)
        if listener in ready:
            client, _ = listener.accept()
            request, fds = _received(client)
            if not (pid := os.fork()):
                for held in (listener, client, *(client for client, _ in running.values())):
                    held.close()
                for held in running:
                    os.close(held)
                return _become(request, fds)
            running[os.pidfd_open(pid)] = client, pid
            for fd in fds:
                os.close(fd)


def _answer(client, pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if client.fileno() >= 0:
        with client, contextlib.suppress(BrokenPipeError):
            client.sendall(struct.pack("i", code))


def _received(client):
    size, fds, _, _ = socket.recv_fds(client, 8, 3)
    (left,) = struct.unpack("Q", size)
    parts = []
    while left:
        parts.append(client.recv(left))
        left -= len(parts[-1])
    return json.loads(b"".join(parts)), fds


def _become(request, fds):
    """Be the process that ``python -c`` would be, up to its first line."""
    import __main__  # noqa: PLC0415

    gc.unfreeze()  # what `preload` froze; else modules end with all that they refer to
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[:] = ["-c", *request["args"]]
    sys.path.remove(os.path.dirname(__file__))
    del sys.modules["prepared"], __main__.serve, __main__.sys
    return compile(request["program"], "<string>", "exec")


def _ask(address, program, *args):
    """The client: its exit code is the program's, or its end is of the same signal."""
    request = {"program": program, "args": args, "cwd": os.getcwd(), "env": dict(os.environ)}
    text = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [struct.pack("Q", len(text))], [0, 1, 2])
        server.sendall(text)
        for fd in (0, 1, 2):  # who reads from the program is to see the end when it ends
            os.close(fd)
        (code,) = struct.unpack("i", server.recv(4, socket.MSG_WAITALL))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__" and len(sys.argv) > 2:
    _ask(*sys.argv[1:])
