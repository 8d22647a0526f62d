from __future__ import annotations

import copy
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from naive_metrics import exact_squared_distances, naive_metrics, summarise

from ttc.metrics import neighbours
from ttc.metrics.representation import representation_metrics

NAMES = ("SAD", "SAA", "CAD", "CAC", "gaussian_potential")


def clustered(seed, views=2, samples=40, dim=8, minority=0.25, noise=0.7):
    generator = np.random.default_rng(seed)
    labels = (generator.permutation(samples) < round(minority * samples)).astype(np.int64)
    content = generator.normal(size=(2, dim))[labels] + noise * generator.normal(size=(samples, dim))
    return content + 0.5 * noise * generator.normal(size=(views, samples, dim)), labels


def assert_equal_to_naive(result, expected, tolerance=1e-10):
    for name in NAMES:
        for found, wanted in zip(result[name]["per_class"], expected[name], strict=True):
            assert found == pytest.approx(wanted, abs=tolerance), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("views", "samples", "radius"), [(2, 40, 0.05), (3, 17, 0.29), (5, 12, 0.4), (2, 7, 1.0)])
def test_equals_double_loops(seed, views, samples, radius):
    embeddings, labels = clustered(seed, views, samples)
    if labels.sum() < 2:
        labels[:2] = 1
    result = representation_metrics(embeddings, labels, radius, peu_draws=0)
    assert_equal_to_naive(result, naive_metrics(embeddings, labels, radius))


@pytest.mark.parametrize("seed", range(4))
def test_ties_of_duplicated_rows(seed):
    generator = np.random.default_rng(seed)
    places = generator.normal(size=(5, 4))
    embeddings = places[generator.integers(5, size=(3, 20))]
    labels = (np.arange(20) < 6).astype(np.int64)
    for radius in (0.02, 0.1, 0.5):
        result = representation_metrics(embeddings, labels, radius, peu_draws=0)
        # Duplicates have distance 0, of which the product form keeps half of the digits.
        assert_equal_to_naive(result, naive_metrics(embeddings, labels, radius), tolerance=3e-8)
        for name in ("SAA", "CAC"):
            expected = naive_metrics(embeddings, labels, radius)[name]
            assert result[name]["per_class"] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("views", "samples", "minority", "dim"), [(2, 50, 5, 8), (5, 30, 2, 3), (2, 200, 2, 128)])
def test_full_collapse_is_chance(dtype, views, samples, minority, dim):
    labels = (torch.arange(samples) < minority).long()
    row = torch.randn(dim, generator=torch.Generator().manual_seed(3), dtype=dtype)
    embeddings = row.expand(views, samples, dim) * (1 + torch.arange(samples, dtype=dtype)[:, None] % 2)
    result = representation_metrics(embeddings, labels)
    rows = views * samples
    for label, count in enumerate(result["class_rows"]):
        assert result["SAA"]["per_class"][label] == pytest.approx(100 * (views - 1) / (rows - 1), abs=1e-12)
        assert result["CAC"]["per_class"][label] == pytest.approx(100 * (count - 1) / (rows - 1), abs=1e-12)
        assert result["SAD"]["per_class"][label] == pytest.approx(0, abs=1e-14)
        assert result["CAD"]["per_class"][label] == pytest.approx(0, abs=1e-14)
        assert result["gaussian_potential"]["per_class"][label] == pytest.approx(1, abs=1e-14)
        assert result["PEU"]["per_class"][label] == 0
        assert result["effective_rank"]["per_class"][label] is None
    assert result["mean_cosine"]["all"] == pytest.approx(1, abs=1e-12)


def test_antipodal_two_point_collapse():
    labels = torch.tensor([0] * 30 + [1] * 10)
    embeddings = torch.zeros(2, 40, 6)
    embeddings[..., 0] = 1 - 2 * labels
    result = representation_metrics(embeddings, labels)
    assert result["neighbours"] == 4
    assert result["CAC"]["per_class"] == [100, 100]
    assert result["SAA"]["per_class"] == pytest.approx([100 / 59, 100 / 19], abs=1e-12)
    assert result["CAD"]["per_class"] == pytest.approx([0, 0], abs=1e-14)
    assert result["PEU"]["per_class"] == [0, 0]
    assert result["effective_rank"]["per_class"] == [None, None]
    assert result["effective_rank"]["all"] == pytest.approx(1, abs=1e-12)
    assert result["mean_cosine"]["per_class"] == pytest.approx([1, 1], abs=1e-12)
    assert result["mean_cosine"]["between"] == pytest.approx(-1, abs=1e-12)
    assert result["mean_cosine"]["all"] == pytest.approx((60 * 59 + 20 * 19 - 2 * 60 * 20) / (80 * 79), abs=1e-12)


def test_uniform_circle():
    samples = 60
    angle = 2 * math.pi * torch.arange(2 * samples, dtype=torch.float64) / (2 * samples)
    points = torch.stack([angle.cos(), angle.sin()], dim=1)
    # The two views of a sample are antipodal.
    embeddings = torch.stack([points[:samples], points[samples:]])
    result = representation_metrics(embeddings, torch.zeros(samples, dtype=torch.long))
    chord = 2 * torch.sin(angle[1:] / 2)
    assert result["SAD"]["all"] == pytest.approx(2, abs=1e-12)
    assert result["SAA"]["all"] == 0
    assert result["CAC"]["all"] == 100
    assert result["CAD"]["all"] == pytest.approx(float(chord.mean()), abs=1e-12)
    assert result["gaussian_potential"]["all"] == pytest.approx(float((-2 * chord**2).exp().mean()), abs=1e-12)
    assert result["effective_rank"]["all"] == pytest.approx(2, abs=1e-12)
    assert result["mean_cosine"]["all"] == pytest.approx(-1 / (2 * samples - 1), abs=1e-12)
    assert result["PEU"]["all"] > 99.5  # ten points per row: hardly two rows share one


def near_collapse(seed, samples, scale):
    """Integer rows (2 n m, n^2 - m^2, 0), which have integer lengths: distances are rational."""
    generator = np.random.default_rng(seed)
    large = round(10**6 / scale)
    rows = []
    for m in generator.integers(1, 10**6, size=2 * samples).tolist():
        axis = int(generator.integers(2))
        sign = 1 if generator.integers(2) else -1
        side = sign * 2 * large * m
        rows.append([side if axis == 0 else 0, side if axis == 1 else 0, large**2 - m**2])
    return rows


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("antipodal", [False, True])
def test_near_collapse_equals_exact_fractions(seed, scale, antipodal):
    samples = 15
    rows = near_collapse(seed, samples, scale)
    labels = np.array([0] * 10 + [1] * 5)
    if antipodal:
        rows = [[-x for x in row] if labels[index % samples] else row for index, row in enumerate(rows)]
    lengths = [math.isqrt(sum(x * x for x in row)) for row in rows]
    unit = [[float(Fraction(x, length)) for x in row] for row, length in zip(rows, lengths, strict=True)]
    embeddings = np.array(unit).reshape(2, samples, 3)
    squared = exact_squared_distances(rows)
    for radius in (0.1, 0.3):
        expected = summarise(squared, 2, samples, labels, radius, tie=Fraction(0))
        result = representation_metrics(embeddings, labels, radius, peu_draws=0)
        for name in ("SAA", "CAC"):
            assert result[name]["per_class"] == pytest.approx(expected[name], abs=1e-10), name
        for name in ("SAD", "CAD"):
            assert result[name]["per_class"] == pytest.approx(expected[name], rel=1e-6), name


def test_caps_limit_a_separated_minority():
    labels = torch.tensor([0] * 99 + [1])
    labels[:2] = 1
    embeddings = torch.nn.functional.one_hot(labels, 4).double().expand(2, 100, 4)
    result = representation_metrics(embeddings, labels, 0.05)
    assert (result["neighbours"], result["class_rows"]) == (10, [194, 6])
    assert result["CAC_cap"]["per_class"] == pytest.approx([100, 50])
    # Only five other rows are near; the rest of the ten belongs to the majority.
    assert result["CAC"]["per_class"] == pytest.approx([100, 50])
    assert result["CAC_over_cap"]["per_class"] == pytest.approx([100, 100])
    assert result["CAC"]["macro"] == pytest.approx(75)
    assert result["CAC"]["all"] == pytest.approx((194 * 100 + 6 * 50) / 200)


def test_one_minority_sample_has_no_within_class_values():
    embeddings, _ = clustered(0)
    labels = np.zeros(40, dtype=np.int64)
    labels[7] = 1
    result = representation_metrics(embeddings, labels)
    for name in ("CAD", "CAC", "CAC_cap", "CAC_over_cap", "gaussian_potential", "PEU", "effective_rank", "mean_cosine"):
        assert result[name]["per_class"][0] is not None, name
        assert result[name]["per_class"][1] is None, name
        assert result[name]["macro"] is None, name
        assert result[name]["all"] is not None, name
    assert result["CAC"]["all"] == result["CAC"]["per_class"][0]
    assert result["SAA"]["per_class"][1] is not None
    assert result["SAD"]["per_class"][1] is not None


@pytest.mark.parametrize(("samples", "views"), [(1, 2), (2, 2), (3, 5)])
def test_tiny_sets_are_json_without_nan(samples, views):
    embeddings, _ = clustered(1, views, samples)
    result = representation_metrics(embeddings, np.zeros(samples, dtype=np.int64), num_classes=3)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["neighbours"] == 1
    assert result["SAA"]["per_class"][1:] == [None, None]


def test_several_classes_with_an_empty_one_between():
    embeddings, _ = clustered(2, samples=30)
    labels = np.arange(30) % 3
    labels[labels == 1] = 3
    result = representation_metrics(embeddings, labels, peu_draws=0)
    expected = naive_metrics(embeddings, labels)
    assert_equal_to_naive(result, expected)
    assert result["CAC"]["macro"] is None
    assert result["class_rows"] == [20, 0, 20, 20]


@pytest.mark.parametrize("block_rows", [1, 3, 16, 1000])
def test_block_size_does_not_change_results(block_rows):
    embeddings, labels = clustered(5, views=3, samples=50)
    expected = representation_metrics(embeddings, labels, 0.1)
    result = representation_metrics(embeddings, labels, 0.1, block_rows=block_rows)
    for name in (*NAMES, "PEU", "effective_rank", "mean_cosine"):
        assert result[name]["per_class"] == pytest.approx(expected[name]["per_class"], abs=1e-12), name


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 10])
def test_all_threads_select_the_smallest_of_their_rows(rows, threads):
    scores = torch.randn(rows, 40, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
    scores[:, 20:] = scores[:, :20]  # ties
    used = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = neighbours._smallest(scores, 7)
    finally:
        torch.set_num_threads(used)
    assert torch.equal(found.sort(dim=1).values, scores.sort(dim=1).values[:, :7])


def test_same_seed_same_digits_and_input_untouched():
    embeddings, labels = clustered(6)
    before = copy.deepcopy((embeddings, labels))
    first = representation_metrics(embeddings, labels, seed=4)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert representation_metrics(embeddings, labels, seed=4) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert representation_metrics(embeddings, labels, seed=5)["PEU"] != first["PEU"]
    np.testing.assert_array_equal(embeddings, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_order_of_samples_and_scale_of_rows_do_not_matter():
    embeddings, labels = clustered(7)
    order = np.random.default_rng(0).permutation(len(labels))
    expected = representation_metrics(embeddings, labels, peu_draws=0)
    shuffled = representation_metrics(3.5 * embeddings[:, order], labels[order], peu_draws=0)
    for name in (*NAMES, "effective_rank"):
        assert shuffled[name]["per_class"] == pytest.approx(expected[name]["per_class"], abs=1e-10), name


def test_tensors_of_lower_precision_and_with_gradient():
    embeddings, labels = clustered(8)
    tensor = torch.tensor(embeddings, dtype=torch.float32, requires_grad=True)
    result = representation_metrics(tensor, torch.tensor(labels), peu_draws=0)
    assert_equal_to_naive(result, naive_metrics(tensor.detach().numpy().astype(np.float64), labels))


def test_mean_cosine_and_rank_against_numpy():
    embeddings, labels = clustered(9, views=2, samples=30)
    result = representation_metrics(embeddings, labels, peu_draws=0)
    rows = embeddings.reshape(-1, 8) / np.linalg.norm(embeddings.reshape(-1, 8), axis=1, keepdims=True)
    classes = np.tile(labels, 2)
    cosine, other = rows @ rows.T, ~np.eye(60, dtype=bool)
    same = classes[:, None] == classes[None]
    found = result["mean_cosine"]
    assert found["all"] == pytest.approx(cosine[other].mean(), abs=1e-12)
    assert found["within"] == pytest.approx(cosine[same & other].mean(), abs=1e-12)
    assert found["between"] == pytest.approx(cosine[~same].mean(), abs=1e-12)
    for label in (0, 1):
        mine = classes == label
        assert found["per_class"][label] == pytest.approx(
            cosine[np.ix_(mine, mine)][~np.eye(mine.sum(), dtype=bool)].mean()
        )
        singular = np.linalg.svd(rows[mine] - rows[mine].mean(axis=0), compute_uv=False)
        share = singular / singular.sum()
        rank = math.exp(-(share * np.log(share)).sum())
        assert result["effective_rank"]["per_class"][label] == pytest.approx(rank, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, y: (z[:1], y), "1 view"),
        (lambda z, y: (z[0], y), "shape"),
        (lambda z, y: (z[:, :0], y[:0]), "shape"),
        (lambda z, y: (z, y[:-1]), "labels has shape"),
        (lambda z, y: (z, y - 1), "labels lie in -1"),
        (lambda z, y: (z, y + 1), "labels lie in 1 to 2"),
        (lambda z, y: (z, y.astype(float)), "integers"),
        (lambda z, y: (np.where(z == z[1, 3, 2], np.nan, z), y), r"embeddings\[1, 3\] has norm nan"),
        (lambda z, y: (np.where(z == z[1, 3, 2], np.inf, z), y), r"embeddings\[1, 3\] has norm inf"),
        (lambda z, y: (z * (np.arange(40) != 9)[:, None], y), r"embeddings\[0, 9\] has norm 0 \(2 such rows\)"),
    ],
)
def test_bad_input_is_refused(change, message):
    embeddings, labels = change(*clustered(10))
    with pytest.raises(ValueError, match=message):
        representation_metrics(embeddings, labels, num_classes=2)


@pytest.mark.parametrize("options", [{"radius": 0.0}, {"radius": 1.5}, {"peu_draws": -1}, {"block_rows": 0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        representation_metrics(*clustered(11), **options)
