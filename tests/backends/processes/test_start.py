"""Kernels may come from anywhere, and no script needs a guard."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from kernels import run
from methods import METHODS

BODY = """
import sys
import numba as nb
import numpy as np
import shmcompute as sc

factor = 3.0

@nb.njit
def jitted(x):
    for i in range(x.size):
        x[i] *= factor

def plain(x):
    x *= factor

class Oops(Exception):
    pass

def fails(x):
    raise Oops(factor)

def closure(n):
    def inner(x):
        x *= n
    return inner

def main(factor_now):
    global factor
    for method in METHODS:
        with sc.Pool(1, start_method=method) as pool, sc.SharedArray(np.ones(10)) as arr:
            for kernel in (jitted, plain, lambda x: plain(x), closure(3.0)):
                arr[:] = 1
                sc.parallel_apply(kernel, arr, pool=pool)
                assert (arr.array == 3).all(), (method, kernel, arr.array)
            try:
                sc.parallel_apply(fails, arr, pool=pool)
            except Oops as error:
                print("caught", error)
            factor = factor_now
            arr[:] = 1
            sc.parallel_apply(plain, arr, pool=pool)
            assert (arr.array == factor_now).all(), "a changed global is seen"
            factor = 3.0
    print("done", len(METHODS))
"""

CALL = "\nmain(4.0)\n"  # no guard


@pytest.fixture(params=["forkserver", pytest.param("fork spawn", marks=pytest.mark.soak)])
def body(request):
    """The text, for some start methods."""
    return _body(request.param)


def _body(methods):
    return f"METHODS = {methods.split()}\n{BODY}"


def _check(done):
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *caught, last = done.stdout.splitlines()
    assert last == f"done {len(caught)}"
    assert set(caught) == {"caught 3.0"}


def _run(*command, **keywords):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, **keywords
    )


@pytest.mark.long
def test_from_a_script_without_a_guard(tmp_path):
    """It is run once, though spawn and forkserver would import it again."""
    script = tmp_path / "script.py"
    script.write_text(_body("fork spawn forkserver") + CALL)
    _check(_run(script))


@pytest.mark.long
def test_from_the_command_line(body):
    _check(_run("-c", body + CALL))


@pytest.mark.long
def test_from_standard_input(body):
    _check(_run("-", input=body + CALL))


@pytest.mark.long
def test_from_a_module_beside_the_script(tmp_path, body):
    """A module's globals are the worker's own: they are what the module says."""
    (tmp_path / "beside.py").write_text(body)
    script = tmp_path / "script.py"
    script.write_text("import beside\nbeside.main(3.0)\n")
    _check(_run(script))


@pytest.mark.long
@pytest.mark.parametrize("namespace", [{}, {"__name__": "nowhere"}])
def test_from_exec(namespace, body):
    """In a namespace with and without a name."""
    _check(_run("-c", f"exec({body + CALL!r}, {namespace!r})"))


@pytest.mark.long
def test_from_a_notebook(body):
    """Cells are code in __main__ that no file holds."""
    _check(
        _run(
            "-c",
            "import __main__\n"
            "from code import InteractiveInterpreter\n"
            "shell = InteractiveInterpreter(vars(__main__))\n"
            f"for cell in ({body!r}, {CALL!r}):\n"
            "    shell.runcode(compile(cell, '<cell>', 'exec'))\n",
        )
    )


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_from_a_module_found_after_the_pool_started(method, tmp_path):
    (tmp_path / "late.py").write_text(
        "import numpy as np\ndef kernel(x):\n    x += np.float64(1)\n"
    )
    done = run(
        """
        import sys
        import numpy as np, shmcompute as sc
        with sc.Pool(1, start_method=sys.argv[2]) as pool, sc.SharedArray(np.zeros(3)) as arr:
            pool.ready()
            sys.path.insert(0, sys.argv[1])
            import late
            sc.parallel_apply(late.kernel, arr, pool=pool)
            print(arr.array)
        """,
        tmp_path,
        method,
    )
    assert done.stdout == "[1. 1. 1.]\n"


@pytest.mark.long
def test_from_the_main_module_of_a_multiprocessing_child(tmp_path):
    """There it has another name, which workers could not import."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "import numpy as np, shmcompute as sc\n"
        "def kernel(x):\n    x += 1\n"
        "def work():\n"
        "    with sc.Pool(1) as pool, sc.SharedArray(np.zeros(2)) as arr:\n"
        "        sc.parallel_apply(kernel, arr, pool=pool)\n"
        "        print(arr.array, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn', 'forkserver'):\n"
        "        process = multiprocessing.get_context(method).Process(target=work)\n"
        "        process.start()\n"
        "        process.join()\n"
    )
    done = _run(script)
    assert (done.stdout, done.stderr) == ("[1. 1.]\n" * 3, "")


@pytest.mark.long
def test_what_tells_children_of_the_main_module_is_put_back():
    """Whoever starts at the same time."""
    done = run(
        """
        import threading, warnings
        from multiprocessing import spawn
        import shmcompute as sc
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
        before = spawn.get_preparation_data
        def start():
            for method in ("forkserver", "fork"):
                sc.Pool(1, start_method=method).ready().close()
        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(spawn.get_preparation_data is before)
        """
    )
    assert done.stdout == "True\n"


@pytest.mark.long
def test_other_threads_keep_their_main_module_while_a_pool_starts():
    done = run(
        """
        import pickle, threading
        import shmcompute as sc
        class Mine:
            pass
        stop, failed, count = threading.Event(), [], [0]
        def work():
            while not stop.is_set():
                count[0] += 1
                try:
                    pickle.loads(pickle.dumps(Mine()))
                except Exception as error:
                    failed.append(error)
        thread = threading.Thread(target=work)
        thread.start()
        for method in ("spawn", "forkserver"):
            with sc.Pool(1, start_method=method) as pool:
                pool.ready()
        stop.set()
        thread.join()
        print(len(failed), count[0] > 10)
        """
    )
    assert done.stdout == "0 True\n"


@pytest.mark.long
def test_nothing_is_imported_from_the_working_directory(tmp_path):
    """Unless the program does so: there may be any files, named like any module."""
    for name in sys.stdlib_module_names - {"__main__"}:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of somebody else')\n")
    done = run(
        """
        import sys
        sys.path[:] = filter(None, sys.path)
        import numpy as np, shmcompute as sc
        for method in ("forkserver", "spawn"):
            with sc.Pool(1, start_method=method) as pool, sc.SharedArray(np.zeros(2)) as arr:
                sc.parallel_apply(np.negative, arr, pool=pool)
                print(pool.submit(abs, -1).result())
        """,
        cwd=tmp_path,
    )
    assert done.stdout == "1\n1\n"


FOLDERS = """
import os, sys
import numpy as np, shmcompute as sc

def size(x):
    x[:] = os.path.getsize("data")

def late(x):
    import of_folder_1
    of_folder_1.kernel(x)

def check(value):
    print(*(int(found) for found in (arr[0], value)))

os.chdir(sys.argv[1])
sys.path.insert(0, "")
with sc.Pool(1) as pool, sc.SharedArray(np.zeros(2)) as arr:
    import of_folder_0
    for number in range(2):
        sc.parallel_apply(size, arr, pool=pool)  # the same call, in another folder
        check(pool.submit(os.path.getsize, "data").result())
        os.chdir(sys.argv[2])
    sc.parallel_apply(late, arr, pool=pool)
    import of_folder_1
    check(pool.submit(of_folder_1.value).result())
with sc.Pool(1) as pool, sc.SharedArray(np.zeros(2)) as arr:  # it never saw the first folder
    sc.parallel_apply(of_folder_0.kernel, arr, pool=pool)
    check(pool.submit(of_folder_0.value).result())
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir(os.getcwd())
    with sc.Pool(1) as other:
        sc.parallel_apply(np.negative, arr, pool=other)
        check(other.submit(abs, -3).result())
"""


@pytest.mark.long
def test_workers_are_in_the_callers_folder(tmp_path):
    """Also after os.chdir(); what was imported before by a relative entry is found, too."""
    folders = [tmp_path / str(number) for number in range(2)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "data").write_text("x" * (number + 5))
        (folder / f"of_folder_{number}.py").write_text(
            f"def kernel(x):\n    x[:] = {number + 10}\ndef value():\n    return {number + 10}\n"
        )
    done = run(FOLDERS, *folders)
    assert done.stdout.splitlines() == ["5 5", "6 6", "11 11", "10 10", "-10 3"]


@pytest.mark.long
def test_a_main_module_that_can_not_be_told_is_none_of_workers_business():
    """A debugger's has no ``__spec__``, and some libraries' start methods only they know."""
    done = run(
        """
        import __main__, multiprocessing
        import shmcompute as sc
        del __main__.__spec__

        class Odd(type(multiprocessing.get_context("spawn"))):
            _name = "known to its library alone"

        def works(method):
            with sc.Pool(1, start_method=method) as pool:
                print(pool.submit(abs, -1).result())

        works("forkserver")
        print(multiprocessing.get_start_method(allow_none=True))  # is still to be chosen
        multiprocessing.context._default_context._actual_context = Odd()
        works("spawn")
        """
    )
    assert done.stdout == "1\nNone\n1\n"


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_starts_processes_as_any_process_does(method, pools):
    """Nothing that is changed while it starts stays with it."""

    def found():
        from multiprocessing import spawn, util

        functions = spawn.get_preparation_data, util.spawnv_passfds
        return [function.__code__.co_name for function in functions]

    assert pools[method].submit(found).result() == ["get_preparation_data", "spawnv_passfds"]


@pytest.mark.long
def test_from_a_module_that_is_being_imported(tmp_path):
    """Its tasks are done before the import is, which has the lock of the module."""
    (tmp_path / "study.py").write_text(
        textwrap.dedent(
            """
            import shmcompute as sc
            from shmcompute.system import context

            class Point:
                def __init__(self, x):
                    self.x = x

            def square(point):
                return Point(point.x ** 2)

            def negative(x):
                return -x

            if not context.in_worker:
                with sc.Pool(2) as pool:
                    print(pool.submit(square, Point(3)).result(60).x)
                    print(list(pool.imap(negative, range(3), chunksize=2)))
            """
        )
    )
    program = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import cloudpickle, study
        print(cloudpickle.list_registry_pickle_by_value())
    """
    assert run(program, tmp_path).stdout == "9\n[0, -1, -2]\nset()\n"


@pytest.mark.long
def test_a_daemonic_process_may_have_a_pool():
    """Workers end with it by themselves, however it ends."""
    done = run(
        """
        import multiprocessing, warnings
        import numpy as np, shmcompute as sc
        warnings.simplefilter("ignore", DeprecationWarning)

        def work(ends):
            with sc.Pool(1, start_method="fork") as pool, sc.SharedArray(np.ones(2)) as arr:
                sc.parallel_apply(np.negative, arr, pool=pool)
                sc.parallel_apply(np.negative, arr, backend="threads")
                print(arr[0], multiprocessing.current_process().daemon, flush=True)
                ends.send(pool.pids[0])
                ends.recv()

        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(theirs,), daemon=True
        )
        process.start()
        import psutil
        worker = psutil.Process(ours.recv())
        process.terminate()
        process.join()
        worker.wait(30)
        print("ended")
        """
    )
    assert done.stdout == "1.0 True\nended\n"


@pytest.mark.long
def test_what_a_library_tells_new_processes_it_tells_workers():
    """So coverage measures its program's children."""
    done = run(
        """
        import sys
        from multiprocessing import spawn
        import shmcompute as sc

        class Addition:
            def __reduce__(self):
                return exec, ("import sys; sys.addition = 7",)

        def added(name, real=spawn.get_preparation_data):
            return real(name) | {"addition": Addition()}

        spawn.get_preparation_data = added
        for method in ("spawn", "forkserver"):
            with sc.Pool(1, start_method=method) as pool:
                print(pool.submit(eval, "__import__('sys').addition").result())
        """,
        fresh="has a fork server of its own",
    )
    assert done.stdout == "7\n7\n"


@pytest.mark.long
def test_a_fork_server_that_is_stopped_keeps_nobody_waiting():
    """Neither a time-out nor Ctrl-C nor the pool's end; what it starts later ends by itself."""
    program = """
        import os, select, signal
        from multiprocessing import forkserver
        import numpy as np, psutil, shmcompute as sc
        import logging; logging.disable()  # it warns of workers that are killed here
        from shmcompute.errors import KernelTimeoutError

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        pool, arr = sc.Pool(2, start_method="forkserver").ready(), sc.SharedArray(np.zeros(4))
        server = forkserver._forkserver._forkserver_pid
        os.kill(server, signal.SIGSTOP)
        for pid in pool.pids:
            dead = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([dead], [], [])
        other = sc.Pool(2, start_method="forkserver")
        for wait in (
            lambda: sc.parallel_apply(np.add, arr, 1.0, timeout=0.1, pool=pool),
            lambda: other.ready(0.1),
        ):
            try:
                wait()
            except KernelTimeoutError:
                print("late")
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            sc.parallel_apply(np.add, arr, 1.0, pool=pool)
        except KeyboardInterrupt:
            print("interrupted")
        other.close()
        os.kill(server, signal.SIGCONT)
        sc.parallel_apply(np.add, arr, 1.0, pool=pool)
        print(arr.array)
        for child in psutil.Process(server).children():
            if child.pid not in pool.pids:
                child.wait(60)
        pool.close()
    """
    expected = "late\nlate\ninterrupted\n[1. 1. 1. 1.]\n"
    assert run(program, fresh="has a fork server of its own").stdout == expected


@pytest.mark.long
@pytest.mark.parametrize("used", [True, False])
def test_a_handler_at_the_programs_end_may_call(used):
    """Workers have been ended by then: it does the work itself."""
    done = run(
        """
        import atexit, sys
        import numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.ones(8))
        def save():
            for _ in range(2):
                sc.parallel_apply(np.negative, arr, pool=pool if sys.argv[1] == "True" else None)
            print(arr.array.sum())
        atexit.register(save)
        if sys.argv[1] == "True":
            pool = sc.Pool(2, start_method="fork")
            sc.parallel_apply(np.negative, arr, pool=pool)
        """,
        used,
        fresh="the order of exit handlers is a new interpreter's" if used else "",
    )
    assert done.stdout == f"{-8.0 if used else 8.0}\n"


@pytest.mark.long
def test_a_fork_server_imports_what_workers_need_beside_what_the_program_asks_for():
    done = run(
        """
        import multiprocessing
        from multiprocessing import forkserver
        import shmcompute as sc

        multiprocessing.set_forkserver_preload(["csv"])
        for _ in range(2):
            sc.Pool(1, start_method="forkserver").ready().close()
            print(sorted(forkserver._forkserver._preload_modules))
        """
    )
    assert done.stdout == "['csv', 'shmcompute.backends.processes.worker.preload']\n" * 2
