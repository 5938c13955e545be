"""``python -m shmcompute demo | bench | doctor | info | ls | gc``."""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
from collections.abc import Sequence

from shmcompute import __version__
from shmcompute.cli import commands
from shmcompute.cli.bench import bench
from shmcompute.cli.demo import demo
from shmcompute.cli.doctor import doctor
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
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return USAGE
    options = parser.parse_args(argv)
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
    parser.add_argument("--version", action="version", version=f"shmcompute {__version__}")
    subparsers = parser.add_subparsers(
        title="commands", required=True, metavar="demo|bench|doctor|info|ls|gc"
    )
    _add_demo(subparsers.add_parser("demo", help="run three kernels on every backend, check, time"))
    _add_bench(subparsers.add_parser("bench", help="compare with what one would use instead"))
    for name, run, summary in (
        ("doctor", doctor, "look whether this host is well; exit code 1 if something is broken"),
        ("info", commands.info, "versions, this machine, settings"),
        ("ls", commands.ls, "list your segments, alive and orphaned, and who holds them"),
    ):
        command = subparsers.add_parser(name, help=summary, description=f"{name}: {summary}")
        command.add_argument("--json", action="store_true", help="for programs")
        command.set_defaults(run=lambda o, run=run: run(as_json=o.json))
    gc = subparsers.add_parser("gc", help="remove segments whose processes have all died")
    gc.add_argument(
        "folders", nargs="*", metavar="FOLDER",
        help="remove what killed calls left beside zarr arrays there, and below, as well",
    )  # fmt: skip
    gc.set_defaults(run=lambda o: commands.gc(o.folders))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    methods = multiprocessing.get_all_start_methods()
    add = parser.add_argument
    add("--size", type=int, metavar="MIB", help="MiB of the largest array (256, or what fits)")
    add("--repeat", type=int, metavar="N", default=3, help="timed runs of each (%(default)s)")
    add("--workers", type=int, metavar="N", help="threads, or processes (the granted cores)")
    add("--start-method", choices=methods, help="how processes start")
    parser.set_defaults(run=lambda o: demo(o.size, o.repeat, o.workers, o.start_method))


def _add_bench(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--size", type=int, metavar="MIB", default=8, help="MiB of the array (%(default)s)")
    add("--workers", type=int, metavar="N", help="processes (the granted cores)")
    add("--json", action="store_true", help="for programs")
    parser.set_defaults(run=lambda o: bench(o.size, o.workers, as_json=o.json))


def _print_any_name() -> None:
    """Have stdout escape what its encoding can't express, such as a file name of invalid bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(error: object, code: int) -> int:
    sys.stderr.write(f"shmcompute: {error}\n")
    return code
