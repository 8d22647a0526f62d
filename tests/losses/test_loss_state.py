"""What objectives keep between steps: checkpoints, hooks, added terms."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import pytest
import torch
from loss_cases import DIM, EPOCH, FEATURES, inputs_for, ready, unit
from torch import Tensor, nn

from ttc.losses import METHODS, build_objective, reference


class Model(nn.Module):
    """Returns (features, embeddings), as the training loop's model does."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.projection = nn.Linear(5, FEATURES), nn.Linear(FEATURES, DIM)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        return features, nn.functional.normalize(self.projection(features), dim=1)


@pytest.mark.parametrize("method", METHODS)
def test_state_goes_through_a_safe_checkpoint(method: str) -> None:
    trained = ready(method)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh = build_objective(
        method,
        minority_class=1,
        class_counts=[5, 5],
        schedule_steps=8,
        feature_dim=FEATURES,
        projection_dim=DIM,
        seed=77,
    ).double()
    if "class_weights_K" in trained.state_dict() or "log_prior_K" in trained.state_dict():
        assert fresh.state_dict().keys() == trained.state_dict().keys()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for objective in (trained, fresh):
        objective.on_step(EPOCH, 8)
    if method in ("supmin", "kcl", "tsc"):
        fresh.seed = trained.seed
    inputs = inputs_for(trained, 6, "mixed", 3)
    torch.testing.assert_close(inputs.call(fresh), inputs.call(trained), atol=0, rtol=0)
    assert not fresh.wants_embeddings(EPOCH)


def test_paco_keys_and_queue() -> None:
    torch.manual_seed(0)
    model = Model()
    objective = build_objective(
        "paco", class_counts=[9, 1], feature_dim=FEATURES, projection_dim=DIM, queue_size=5, momentum=0.75
    )
    with pytest.raises(ValueError, match="attach"):
        objective.add_keys(torch.zeros(3, 1, DIM), torch.zeros(3, 2, 5))
    objective.attach(model)
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    images, labels = torch.randn(3, 2, 5), torch.tensor([0, 1, 0])
    for step in range(2):
        features, z = model(images[:, 0])
        views = objective.add_keys(z[:, None], images)
        assert views.shape == (3, 2, DIM)
        objective(views, labels, features=features[:, None]).backward()
        assert objective.filled == 3 * step
        objective.after_step(model)
    assert all(p.grad is None and not p.requires_grad for p in objective.key_model.parameters())
    for key, old, new in zip(objective.key_model.parameters(), before, model.parameters(), strict=True):
        torch.testing.assert_close(key, 0.75**2 * old + (1 - 0.75**2) * new)
    assert (objective.filled, objective.cursor) == (5, 1)
    torch.testing.assert_close(objective.queue_QD[[3, 4, 0]], views[:, 1].detach())
    assert objective.queue_labels_Q.tolist() == [0, 1, 0, 0, 1]


def test_paco_warns_of_the_vanishing_classifier(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "ttc"):
        build_objective("paco", class_counts=[99, 1])
    assert "0.25 % of the target" in caplog.text
    objective = build_objective("paco", class_counts=[99, 1], rescale_alpha=True, projection_dim=DIM).double()
    objective(unit(40, 2, DIM, seed=0), torch.zeros(40, dtype=torch.int64), features=torch.zeros(40, 2, 2))
    assert float(objective.terms["classifier_share"]) == pytest.approx(1 / (1 + 0.05 * 79 / (0.99 * 80)))


def test_tsc_matches_targets_to_centroids() -> None:
    objective = build_objective("tsc", projection_dim=DIM, matching="ema").double()
    z = objective.prototypes_KD.flip(0)[:, None].expand(2, 2, DIM)
    first = objective(z, torch.tensor([0, 1]))
    assert objective.assignment_K.tolist() == [0, 1]
    objective.after_step(nn.Identity())
    assert objective.assignment_K.tolist() == [1, 0]
    assert float(objective(z, torch.tensor([0, 1]))) < float(first)
    fixed = build_objective("tsc", projection_dim=DIM).double()
    fixed(z, torch.tensor([0, 1]))
    fixed.after_step(nn.Identity())
    assert fixed.assignment_K.tolist() == [0, 1]


def test_sbc_clusters_by_sample_id() -> None:
    objective = build_objective("sbc", every=3, warmup_epochs=2, min_cluster_size=4).double()
    assert [e for e in range(9) if objective.wants_embeddings(e)] == [2, 5, 8]
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(DIM, dtype=torch.float64)[:4]
    blob = torch.arange(24) % 4
    noise = 0.01 * torch.randn(24, DIM, generator=generator, dtype=torch.float64)
    z = nn.functional.normalize(torch.cat((centres[blob] + noise, noise[:5] + centres[0])), dim=1)
    labels = torch.tensor([0] * 24 + [1] * 5)
    ids = 100 + torch.randperm(29, generator=generator)
    objective.on_epoch(2, lambda: (z, labels, ids))
    sub_class = dict(zip(objective.known_ids_N.tolist(), objective.sub_classes_N.tolist(), strict=True))
    groups = [{sub_class[int(i)] for i in ids[:24][blob == b]} for b in range(4)]
    assert sorted(map(len, groups)) == [1, 1, 1, 1]
    assert set().union(*groups) == {0, 1, 2, 3}
    assert {sub_class[int(i)] for i in ids[24:]} == {4}
    spread = (z[:24] - z[:24].mean(0)).norm(dim=1).mean() / torch.tensor(34.0).log()
    single = (z[24:] - z[24:].mean(0)).norm(dim=1).mean() / torch.tensor(15.0).log()
    expected = 0.1 * (spread / ((spread + single) / 2)).exp()
    torch.testing.assert_close(objective.class_temperatures_K, torch.stack((expected, torch.tensor(0.1).double())))
    assert not objective.wants_embeddings(2)

    shuffled = build_objective("sbc", every=3, warmup_epochs=2, min_cluster_size=4).double()
    order = torch.randperm(29, generator=generator)
    shuffled.on_epoch(2, lambda: (z[order], labels[order], ids[order]))
    assert torch.equal(shuffled.sub_classes_N, objective.sub_classes_N)

    received: list[Tensor] = []
    shuffled.on_epoch(5, lambda: (z, labels, ids), broadcast=lambda t: received.append(t) or torch.zeros_like(t))
    assert len(received) == 2
    assert shuffled.num_sub_classes == 1


@pytest.mark.parametrize("spreads", [[0.6, 0.2], [0.7, 0.5, 0.4, 0.3, 0.1]])
def test_the_published_code_clips_the_spread_of_a_class(spreads: list[float]) -> None:
    """Class c lies at distance r_c around the origin: phi = r / ln(n + 10), between the percentiles 20 and 80."""
    sizes = [40, 16, 20, 20, 44][: len(spreads)]
    z = torch.cat([r * torch.eye(DIM, dtype=torch.float64)[:1] * (-1.0) ** torch.arange(n)[:, None]
                   for r, n in zip(spreads, sizes, strict=True)])  # fmt: skip
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    phi = [r / math.log(n + 10) for r, n in zip(spreads, sizes, strict=True)]
    expected = {}
    for rule, kept in ((1, phi), (2, np.clip(phi, np.percentile(phi, 20), np.percentile(phi, 80)).tolist())):
        settings = {"num_classes": len(sizes), "min_cluster_size": 5, "warmup_epochs": 0, "tau2": "code", "rule": rule}
        objective = build_objective("sbc", **settings).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # k-means: two distinct points, and more clusters
            objective.on_epoch(0, lambda: (z, labels, torch.arange(len(labels))))
        single = [n // max(min(sizes), 5) == 1 for n in sizes]
        expected[rule] = [
            0.1 if one else 0.1 * k / (sum(kept) / len(kept)) for one, k in zip(single, kept, strict=True)
        ]
        assert objective.class_temperatures_K.tolist() == pytest.approx(expected[rule], rel=1e-7)
    assert expected[1] != pytest.approx(expected[2], abs=1e-3)


def test_sbc_warms_up_with_plain_supcon_unless_its_state_is_older() -> None:
    """The published code divides by its base temperature after the first clustering alone: 0.1 / 0.07 = 1.43."""
    objective, inputs = build_objective("sbc").double(), inputs_for(build_objective("supcon").double(), 6, "mixed", 4)
    ids = torch.arange(6)
    inputs.z = inputs.z.detach()
    plain = reference.supcon(inputs.z, inputs.labels, tau=0.1)
    assert float(objective(inputs.z, inputs.labels, sample_ids=ids)) == pytest.approx(float(plain), abs=1e-12)
    assert objective.collapse_value(6) == pytest.approx(math.log(11))
    state = objective.state_dict()
    assert state["_extra_state"].pop("rule") == 2
    for older in (build_objective("sbc").double(), build_objective("sbc", rule=1).double()):
        if older.rule == 2:
            older.load_state_dict(state)
        found = float(older(inputs.z, inputs.labels, sample_ids=ids))
        assert found == pytest.approx(0.1 / 0.07 * float(plain), abs=1e-12)
        assert older.collapse_value(6) == pytest.approx(0.1 / 0.07 * math.log(11))
        assert older.state_dict()["_extra_state"]["rule"] == 1


def test_added_terms_and_their_values() -> None:
    arguments = {"minority_class": 1, "projection_dim": DIM, "feature_dim": FEATURES, "seed": 2}
    objective = build_objective(
        "supmin", ce_weight=0.5, instance_weight=0.25, prototype_weight=2.0, **arguments
    ).double()
    assert objective.needs_features
    inputs = inputs_for(objective, 8, "mixed", 3)
    objective.keep_graph_terms = True
    loss = inputs.call(objective)
    head = objective.extra_terms["cross_entropy"]
    supmin, simclr = (build_objective(m, **arguments).double()(inputs.z, inputs.labels) for m in ("supmin", "simclr"))
    logits = objective.classifier(inputs.features)
    assert logits is not None
    torch.testing.assert_close(logits, head.head(inputs.features))
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), inputs.labels.repeat_interleave(2))
    z, labels = inputs.z.flatten(0, 1), inputs.labels.repeat_interleave(2)
    to_prototypes = z @ objective.extra_terms["prototype"].prototypes_KD.T
    logits_AA = (z @ z.T / 0.07).masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
    of_class, other = to_prototypes[range(16), labels], to_prototypes[range(16), 1 - labels]
    pull = ((logits_AA.logsumexp(1) - of_class / 0.07) * (of_class <= other + 1.0)).mean()
    torch.testing.assert_close(loss, 0.75 * supmin + 0.25 * simclr + 0.5 * entropy + 2.0 * pull)
    assert set(objective.terms) >= {"objective", "instance", "cross_entropy", "prototype", "no_positive_fraction"}
    assert not objective.terms["prototype"].requires_grad
    torch.testing.assert_close(torch.stack(tuple(objective.values.values())).sum(), loss)
    for value in objective.values.values():
        assert torch.autograd.grad(value, [inputs.z, inputs.features], retain_graph=True, allow_unused=True) != (
            None,
            None,
        )
    objective.keep_graph_terms = False
    inputs.call(objective)
    assert objective.values == {}


@pytest.mark.parametrize(
    "method", ["bcl", "paco", "proco", "ce", "weighted-ce", "focal", "logit-adjusted-ce", "ldam-drw"]
)
def test_own_classifier(method: str) -> None:
    logits = ready(method).classifier(torch.randn(3, FEATURES, dtype=torch.float64))
    assert logits is not None
    assert logits.shape == (3, 2)
    assert ready("supcon").classifier(torch.zeros(3, FEATURES)) is None
