"""Lets tox find the Pythons that pyenv has installed, beside those on the path."""

import os
from pathlib import Path

if root := os.environ.get("PYENV_ROOT"):
    found = sorted(map(str, Path(root).glob("versions/3.*/bin")))
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *found])
