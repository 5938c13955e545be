"""The documentation site: `tox run -e docs` builds it into docs/_build/html."""

import sys
from pathlib import Path

import shmcompute

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "shmcompute"
author = "The shmcompute developers"
version = release = shmcompute.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "numpydoc",
    "gallery",
    "repository",
]
exclude_patterns = ["_build", "_ext"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {page: [] for page in ("index", "start", "coming_from")}

default_role = "autolink"  # `numpy.sort` and `SharedArray` in docstrings
add_module_names = False
autodoc_typehints = "none"  # numpydoc's sections tell
autosummary_generate = True
autosummary_ignore_module_all = False
numpydoc_show_class_members = False  # pages list members themselves

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks keep their outputs; tests/docs run them and compare
copybutton_exclude = ".linenos, .gp, .go"
suppress_warnings = ["config.cache"]
