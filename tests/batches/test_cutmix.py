"""Minority CutMix."""

from __future__ import annotations

import pytest
import torch

from ttc.batches.cutmix import minority_cutmix


def batch(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return views whose pixels name their sample and view, a rare mask, and ids."""
    views = torch.arange(samples * 2.0).view(samples, 2, 1, 1, 1).expand(samples, 2, 1, 12, 12).clone()
    rare = torch.rand(samples, generator=torch.Generator().manual_seed(seed)) < 0.4
    return views, rare, torch.arange(samples) + 7


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_only_rare_views_change_and_only_by_a_square_of_one_common_view(seed: int) -> None:
    views, rare, ids = batch(64, seed)
    mixed = minority_cutmix(views, rare, ids, torch.zeros_like(ids), area=0.4, seed=seed)
    assert torch.equal(mixed[~rare], views[~rare])
    common = set(views[~rare][:, :, 0, 0, 0].flatten().tolist())
    changed = 0
    for before, after in zip(views[rare].flatten(0, 1), mixed[rare].flatten(0, 1), strict=True):
        patch = (before != after)[0]
        if not patch.any():
            continue
        changed += 1
        assert len(after[0][patch].unique()) == 1
        assert after[0][patch][0].item() in common
        rows, columns = patch.any(1).nonzero().flatten(), patch.any(0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert patch.sum() == height * width
        assert max(height, width) <= 0.4**0.5 * 12 + 1
    assert 0.25 < changed / (2 * int(rare.sum())) < 0.65


def test_a_function_of_seed_draw_and_id() -> None:
    views, rare, ids = batch(32, 0)
    draws = torch.zeros_like(ids)
    first = minority_cutmix(views, rare, ids, draws, area=0.4, seed=3)
    assert torch.equal(first, minority_cutmix(views, rare, ids, draws, area=0.4, seed=3))
    assert not torch.equal(first, minority_cutmix(views, rare, ids, draws + 1, area=0.4, seed=3))
    assert not torch.equal(first, minority_cutmix(views, rare, ids, draws, area=0.4, seed=4))


@pytest.mark.parametrize("everything", [True, False])
def test_a_batch_of_one_kind_stays(everything: bool) -> None:
    views, _, ids = batch(8, 0)
    rare = torch.full((8,), everything)
    assert torch.equal(minority_cutmix(views, rare, ids, ids, area=0.5, seed=0), views)
