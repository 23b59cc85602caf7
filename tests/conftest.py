"""Where the tests find what they compare with, and the versions they ran with."""

import configparser
import os
import platform
import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tests' matrices are small: on a busy machine threads wait for each other


def required_versions() -> dict[str, str]:
    """The oldest release that setup.cfg allows of each package: {"torch": "2.3", ...}."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    return dict(re.findall(r"^([\w-]+)>=([\d.]+)$", lines, re.MULTILINE))


def pytest_addoption(parser) -> None:
    parser.addoption("--all", action="store_true", help="also the tests that are marked long, which take minutes")


def pytest_collection_modifyitems(config, items) -> None:
    """Tests that are marked long are skipped but with --all, which CI gives."""
    if not config.getoption("--all"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long: pytest --all runs it"))


def pytest_terminal_summary(terminalreporter) -> None:
    """The versions below the results, with -q too."""
    versions = [f"{name} {metadata.version(name)}" for name in required_versions()]
    terminalreporter.write_line(f"ran with Python {platform.python_version()}, {', '.join(versions)}")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small models written by transformers, safetensors and TensorFlow: see golden/make_golden.py."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def expected(golden) -> dict:
    """The reference libraries' logits for them."""
    return dict(np.load(golden / "expected.npz"))


@pytest.fixture(scope="session")
def gpt2_folder() -> Path:
    """OpenAI's real tokenizer and attention weights; the tests that need them skip without them."""
    folder = os.environ.get("TINYHEADS_GPT2")
    if not folder:
        pytest.skip("TINYHEADS_GPT2 is unset: it names the folder with OpenAI's vocab.bpe and "
                    "model-attention.safetensors")
    return Path(folder)
