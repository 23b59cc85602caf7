"""Where the tests find what they compare with."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tests' matrices are small: on a busy machine threads wait for each other


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
        pytest.skip("TINYHEADS_GPT2 is unset: it names the folder with OpenAI's vocab.bpe and model-attention.safetensors")
    return Path(folder)
