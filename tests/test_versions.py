"""The packages are not older than setup.cfg allows: with its oldest releases the suite was seen to pass."""

import re
from importlib import metadata

import pytest

from conftest import required_versions


def numbers(version: str) -> tuple[int, ...]:
    """"2.13.0+cpu" -> (2, 13, 0)."""
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split("."))


@pytest.mark.parametrize("package", ["torch", "numpy", "tiktoken", "matplotlib", "pytest"])
def test_no_package_is_older_than_setup_cfg_allows(package):
    oldest, here = required_versions()[package], metadata.version(package)
    assert numbers(here) >= numbers(oldest), f"{package} {here} is installed, and setup.cfg asks for {oldest} or later"


def test_setup_cfg_names_no_other_package():
    assert sorted(required_versions()) == ["matplotlib", "numpy", "pytest", "tiktoken", "torch"]
