"""``python -m shmcompute demo | info | ls | gc``."""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
from collections.abc import Sequence

from shmcompute.cli import commands
from shmcompute.cli.demo import demo
from shmcompute.errors import ShmComputeError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0, 1 for a failure, 2 for wrong usage. `argparse` leaves by SystemExit(2) of its own.
    """
    options = _parser().parse_args(argv)
    _print_any_name()
    try:
        return int(options.run(options))
    except BrokenPipeError:
        # The reader closed the pipe. Python would fail once more at exit, when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except ShmComputeError as error:
        return _fail(error, FAILED)
    except ValueError as error:
        return _fail(error, USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("shmcompute", description="Shared-memory NumPy arrays.")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="demo|info|ls|gc")
    _add_demo(subparsers.add_parser("demo", help="run three kernels on every backend, check, time"))
    for name, run, summary in (
        ("info", commands.info, "versions, this machine, settings"),
        ("ls", commands.ls, "list your segments, alive and orphaned"),
        ("gc", commands.gc, "remove segments whose processes have all died"),
    ):
        subparsers.add_parser(name, help=summary).set_defaults(run=lambda _, run=run: run())
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    methods = multiprocessing.get_all_start_methods()
    add = parser.add_argument
    add("--size", type=int, metavar="MIB", help="MiB of the largest array (256, or what fits)")
    add("--repeat", type=int, metavar="N", default=3, help="timed runs of each (%(default)s)")
    add("--workers", type=int, metavar="N", help="threads, or processes (the granted cores)")
    add("--start-method", choices=methods, help="how processes start")
    parser.set_defaults(run=lambda o: demo(o.size, o.repeat, o.workers, o.start_method))


def _print_any_name() -> None:
    """Have stdout escape what its encoding can't express, such as a file name of invalid bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(error: object, code: int) -> int:
    sys.stderr.write(f"shmcompute: {error}\n")
    return code
