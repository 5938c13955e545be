"""Run the code of Markdown pages: ``python tests/support/run_pages.py PAGE...``.

Blocks of one page are run in order and share their names. What is marked ``python`` is run; what is
marked ``pycon`` has to print what stands there. Comments, which no reader sees, say the rest:

- ``<!-- run ... -->`` is code that is run, too, to make what a block takes for granted;
- ``<!-- not run: why -->`` before a block, for what a reader's machine may have and ours does not;
- ``<!-- needs MODULE -->`` before a block: it is run where that module is installed.
"""

import contextlib
import doctest
import importlib.util
import io
import re
import sys
import traceback
import types
from pathlib import Path

BLOCK = re.compile(
    r"^(?:(?P<note><!-- (?:not run:|needs) [^\n]*-->)\n+)?"
    r"```(?P<kind>python|pycon)\n(?P<code>.*?)^```$"
    r"|^<!-- run\n(?P<hidden>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text):
    """Kind, first line and code of each block that is to be run."""
    for match in BLOCK.finditer(text):
        if not _skipped(match["note"]):
            code = "hidden" if match["hidden"] is not None else "code"
            line = text.count("\n", 0, match.start(code))
            yield match["kind"] or "python", line, match[code]


def _skipped(note):
    if note is None:
        return False
    modules = note.removesuffix("-->").removeprefix("<!-- needs").split()
    return "not run:" in note or not all(map(importlib.util.find_spec, modules))


def run_block(kind, line, code, names, page):
    """What went wrong, or an empty string."""
    told = io.StringIO()
    try:
        if kind == "pycon":
            test = doctest.DocTestParser().get_doctest(code, {}, page, page, line)
            test.globs = names
            doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=told.write, clear_globs=False)
            return told.getvalue()
        with contextlib.redirect_stdout(told):
            exec(compile("\n" * line + code, page, "exec"), names)
    except Exception:
        return f"{page}, in the block at line {line}:\n{traceback.format_exc()}"
    return ""


@contextlib.contextmanager
def main_module():
    """Names of a page, found where pickles look for the functions of a program."""
    before, main = sys.modules["__main__"], types.ModuleType("__main__")
    sys.modules["__main__"] = main
    try:
        yield vars(main)
    finally:
        sys.modules["__main__"] = before


def run_page(page):
    with main_module() as names:
        failures = [run_block(*block, names, str(page)) for block in blocks(Path(page).read_text())]
    return [failure for failure in failures if failure]


if __name__ == "__main__":
    failures = [failure for page in sys.argv[1:] for failure in run_page(page)]
    print("\n".join(failures), end="")
    sys.exit(bool(failures))
