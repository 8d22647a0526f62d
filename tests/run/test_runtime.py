"""What the scripts ask of the C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.processes import ROOT

KEPT = """
import ctypes, torch
from ttc.run import runtime
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "mapped", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]
ask = ctypes.CDLL(None).mallinfo2
ask.restype = Info
{first}
before = ask()
held = [torch.ones(2**22) for _ in range(4)]
during = ask()
del held
print(during.mapped - before.mapped, (ask().arena - before.arena) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_freed_memory_is_kept() -> None:
    """Of four tensors of 16 MiB, each is a mapping of its own, which ends with it; or they are heap, which stays."""

    def mappings_and_kept_mib(first: str) -> list[int]:
        code = KEPT.format(first=first)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    mappings, kept = mappings_and_kept_mib("runtime.keep_freed_memory()")
    assert mappings == 0
    assert kept >= 64
    assert mappings_and_kept_mib("") == [4, 0]
