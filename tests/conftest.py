"""Settings for all tests: one thread each, nothing from the network, no folders of the user's own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLOW = """
    test_runner test_lora_wikitext_2 test_babilong_table test_hub_bounds test_figure_5 test_devices test_kernels
    test_settings test_stops test_streams test_hub_promises test_bptt test_queue
""".split()


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process waits for the other at the end; else the order stays."""
    rank = {name: i for i, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(SLOW)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
