"""The reference: every public name, with its parameters, results, errors and an example."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import shmcompute as sc
from shmcompute import errors

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|data|module):: (?:shmcompute\.)?(\w+)$", re.M)

# What has no such section, for it has no such thing.
NUMBERS = ["offset", "chunk", "sweep"]
NO_PARAMETERS = {*NUMBERS, "shutdown"}
NO_RETURNS = {*NUMBERS, "shutdown", "parallel_sort"}  # and classes
NO_RAISES = {*NUMBERS, "shutdown"}
NAMES = [name for name in sc.__all__ if name != "errors"]


def sections(name):
    return set(re.findall(r"^(\w+)\n-+$", inspect.getdoc(getattr(sc, name)), re.M))


def wanted(name):
    yield "Examples"
    if name not in NO_PARAMETERS:
        yield "Parameters"
    if name not in NO_RETURNS and not inspect.isclass(getattr(sc, name)):
        yield "Returns"
    if name not in NO_RAISES:
        yield "Raises"


def test_every_public_name_is_described_once():
    pages = [page.read_text() for page in FOLDER.glob("*.md")]
    described = [name for page in pages for name in DIRECTIVE.findall(page)]
    assert sorted(described) == sorted(sc.__all__)


def test_every_public_name_is_in_the_index():
    listed = re.findall(r"^   (\w+)$", (FOLDER / "index.md").read_text(), re.M)
    assert sorted(listed) == sorted(sc.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_says_all_that_one_needs(name):
    """Parameters, returns, raises and an example, where there is such a thing."""
    missing = set(wanted(name)) - sections(name)
    assert not missing


@pytest.mark.parametrize("name", sorted({*NAMES} - NO_PARAMETERS - {"SharedArrayManager"}))
def test_each_parameter_is_described(name):
    """By its name, in numpydoc's form. (The manager's are the standard library's.)"""
    described = inspect.getdoc(getattr(sc, name)).split("Parameters\n-")[1].split("\n\n")[0]
    heads = re.findall(r"^(\S.*?)(?: : .*)?$", described, re.M)
    names = {one.strip(" *") for head in heads for one in head.split(",")}
    assert set(inspect.signature(getattr(sc, name)).parameters) <= names


@pytest.mark.parametrize("name", NUMBERS)
def test_examples_of_objects_are_true(name):
    """pytest finds those of functions and classes by itself."""
    text = getattr(sc, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert doctest.DocTestRunner().run(example).failed == 0


def test_every_error_says_when_it_comes():
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, sc.errors.ShmComputeError):
            assert error.__doc__, name
