"""What a process asks of the system before it computes."""

import os
import platform
import sys

import pytest
import torch

import crackseg.devices  # noqa: F401 - its import is what is tested


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed blocks back")
@pytest.mark.skipif(any("MALLOC" in name for name in os.environ), reason="the user has chosen for glibc")
def test_a_tensor_takes_the_memory_of_the_one_before_instead_of_new_pages() -> None:
    import resource  # Windows has none

    assert sys.platform == "linux"

    def count_new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(10_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    count_new_pages()  # the first ones are new
    assert count_new_pages() < 10_000  # 10 tensors of 40 MB are 97,656 pages of 4 kB
