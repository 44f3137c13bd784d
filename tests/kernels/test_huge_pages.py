"""Arrays in large pages hold what was put into them, and the system has been asked for the pages."""

from __future__ import annotations

import os

import pytest
import torch

from zqserve.kernels import huge_pages


@pytest.mark.parametrize("shape", [(3, 5), (1024, 1024), (1500, 1001), (2048, 2049)])
def test_a_copy_has_the_values_in_their_order(shape: tuple[int, int]) -> None:
    values = torch.arange(shape[0] * shape[1], dtype=torch.int32).view(shape).t()
    found = huge_pages.copied(values)
    assert found.is_contiguous()
    assert torch.equal(found, values)


@pytest.mark.skipif(not os.path.isdir("/sys/kernel/mm/transparent_hugepage"), reason="the system has no large pages")
def test_the_system_is_asked_for_large_pages() -> None:
    found = huge_pages.copied(torch.zeros(2**21).view(2, -1).t())
    middle = found.data_ptr() + 4 * found.numel() // 2
    assert "hg" in _flags_of_mapping(middle)


def _flags_of_mapping(address: int) -> list[str]:
    """The kernel's flags for the mapping that holds an address."""
    inside = False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                inside = begin <= address < end
            elif inside and first == "VmFlags:":
                return line.split()[1:]
    raise AssertionError("the address is in no mapping")
