"""Settings for all tests."""

import os

import pytest

# Two test processes with two OpenMP threads each on two cores wait for each other most of the time.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs CUDA where there is none, and count it as left out, not as skipped."""
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if not needy:
        return
    import torch  # takes seconds, hence only here

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if item not in needy]
