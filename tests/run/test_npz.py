from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ttc.run.npz import read_arrays


def test_an_array_of_python_objects_is_named_with_its_remedy(tmp_path: Path) -> None:
    texts = np.array(["a", "b"], dtype=object)
    np.savez(tmp_path / "a.npz", images=np.zeros(2), label=texts)
    with pytest.raises(ValueError, match=r"the array label holds Python objects, .*; save text as label.astype\('U'\)"):
        read_arrays(tmp_path / "a.npz", ["images", "label"])
    np.savez(tmp_path / "b.npz", label=texts.astype("U"))
    assert read_arrays(tmp_path / "b.npz", ["label"])[0].tolist() == ["a", "b"]
