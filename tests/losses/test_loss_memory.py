"""Peak memory of the losses at a batch of 4096 samples, where one pair matrix takes 256 MiB."""

from __future__ import annotations

import pytest
import torch

from benchmarks.references import masked_supcontrast
from benchmarks.timing import growth_of_peak, in_fresh_process
from ttc.losses import METHODS, build_objective

SAMPLES, DIM = 4096, 128
PAIR_MATRIX_MIB = (2 * SAMPLES) ** 2 * 4 / 2**20
STREAMED = [name for name, m in METHODS.items() if m.streamed and m.objective.space == "projection"]
EPOCH = 10


def peak_mib(method: str, samples: int) -> float:
    torch.set_num_threads(1)
    objective = build_objective(method, minority_class=1, class_counts=[95, 5], feature_dim=8, projection_dim=DIM)
    objective.validate = False
    generator = torch.Generator().manual_seed(0)
    objective.on_step(EPOCH, 7)
    if objective.wants_embeddings(EPOCH):  # the state of the middle of a run, sub-classes included
        ids = torch.arange(2 * samples)
        rows = torch.nn.functional.normalize(torch.randn(len(ids), DIM, generator=generator), dim=-1)
        objective.on_epoch(EPOCH, lambda: (rows, (ids % 20 == 0).long(), ids))

    def call(samples: int) -> None:
        z = torch.nn.functional.normalize(torch.randn(samples, objective.views, DIM, generator=generator), dim=-1)
        features, ids = torch.randn(samples, objective.views, 8, generator=generator), torch.arange(samples)
        objective(z.requires_grad_(), (ids % 20 == 0).long(), features=features, sample_ids=ids).backward()

    call(600)  # libraries allocate their work space on the first call
    return growth_of_peak(lambda: call(samples), torch.device("cpu"))


@pytest.mark.parametrize("method", STREAMED)
def test_peak_at_4096_is_a_fraction_of_one_pair_matrix(method: str) -> None:
    # The allocator and other work on the machine only add, so that the least of some processes is the method's own.
    assert any(in_fresh_process(peak_mib, method, SAMPLES) < PAIR_MATRIX_MIB / 4 for _ in range(3))


def masked_peak_mib(samples: int) -> float:
    torch.set_num_threads(1)

    def call() -> None:
        z = torch.nn.functional.normalize(torch.randn(samples, 2, DIM), dim=-1).requires_grad_()
        masked_supcontrast(z, torch.arange(samples) % 2).backward()

    return growth_of_peak(call, torch.device("cpu"))


def test_the_measurement_sees_pair_matrices() -> None:
    samples = 1024
    assert in_fresh_process(masked_peak_mib, samples) > 4 * (2 * samples) ** 2 * 4 / 2**20


def test_memory_grows_with_the_rows_not_with_the_pairs() -> None:
    small, large = (in_fresh_process(peak_mib, "simclr", samples) for samples in (SAMPLES // 2, 2 * SAMPLES))
    # Four times the rows, sixteen times the pairs; the allocator moves single figures by a third.
    assert large < 8 * small
