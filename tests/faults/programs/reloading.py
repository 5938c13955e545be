"""``reloading.py TIMES SEED FOLDER``: loads modules again between calls and tasks.

Prints a line for each: whether a result was not that of the code as it is.
"""

import importlib
import random
import sys
from pathlib import Path

import numpy as np

import shmcompute as sc


def main(times, seed, folder):
    """Write one of two modules anew, load it again, and call what uses both."""
    dice = random.Random(int(seed))
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    factors = {"first": 1, "second": 1}

    def write(name):
        text = f"def times(v): return v * {factors[name]}\ndef scale(x): x *= {factors[name]}\n"
        if name == "second":
            text += "import first\ndef both(v): return first.times(times(v))\n"
        Path(folder, f"{name}.py").write_text(text)

    for name in factors:
        write(name)
    modules = {name: importlib.import_module(name) for name in factors}
    with sc.Pool(2) as pool, sc.SharedArray(np.ones(8)) as arr:
        for _ in range(int(times)):
            name = dice.choice(list(factors))
            if dice.random() < 0.7:
                factors[name] = dice.randint(2, 99)
                write(name)
                modules[name] = importlib.reload(modules[name])
            arr[:] = 1
            sc.parallel_apply(modules[name].scale, arr, pool=pool)
            told = [
                (arr.array == factors[name]).all(),
                pool.submit(modules[name].times, 2).result() == 2 * factors[name],
                list(pool.map(modules["second"].both, [1]))
                == [factors["first"] * factors["second"]],
            ]
            print(int(not all(told)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
