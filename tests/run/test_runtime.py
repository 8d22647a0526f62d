"""What the scripts ask of the C library."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.processes import ROOT

KEPT = """
import ctypes
from ttc.run import runtime
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "mapped", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]
library = ctypes.CDLL(None)
ask, take, free = library.mallinfo2, library.malloc, library.free
ask.restype, take.restype, take.argtypes, free.argtypes = Info, ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
{first}
before = ask()
held = [take(2**24) for _ in range(4)]
during = ask()
for block in held:
    free(block)
after = ask()
taken, grown = during.uordblks - before.uordblks, after.arena - during.arena
print(during.mapped - before.mapped, round(taken / 2**20), round(grown / 2**20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_freed_memory_is_kept() -> None:
    """Of four blocks of 16 MiB, each is a mapping of its own, which ends with it; or they are heap, which stays."""

    def measured(first: str) -> list[int]:
        """Return mappings and MiB of heap that the blocks take, and MiB by which the heap grows when they go."""
        code = KEPT.format(first=first)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    assert measured("runtime.keep_freed_memory()") == [0, 64, 0]
    assert measured("") == [4, 0, 0]
