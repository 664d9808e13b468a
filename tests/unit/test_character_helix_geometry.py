"""The shape of a curve of means: components against SVD, ringing and distances by hand."""

import numpy as np
import pytest

from mi_core.analyses.character_helix_geometry import geometry
from mi_core.analyses.character_helix_ringing import cosine_by_distance, ringing


def helix_points(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A helix of three turns in 40 dimensions, far from the origin."""
    counts = np.arange(90)
    turn = 2 * np.pi * counts / 30
    curve = np.stack([3 * np.cos(turn), 3 * np.sin(turn), counts / 45], axis=1)
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(40, 3)))[0].T
    return curve @ basis + 50 * random.normal(size=40) + noise * random.normal(size=(90, 40)), counts


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_components_are_those_of_an_svd(noise):
    points, counts = helix_points(noise)
    shape = geometry(points, counts, 6)
    centred = points - points.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(shape.shares, (sizes**2 / (sizes**2).sum())[:6], atol=1e-12)
    assert shape.total == pytest.approx((centred**2).sum(1).mean())
    assert shape.dimensions == pytest.approx((sizes**2).sum() ** 2 / (sizes**4).sum())
    for component in range(3):
        theirs = left[:, component] * sizes[component]
        ours = shape.projections[:, component]
        np.testing.assert_allclose(ours * np.sign(ours @ theirs), theirs, atol=1e-8)
        assert ours[np.abs(ours).argmax()] > 0
    lengths = np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(shape.cosine, centred @ centred.T / np.outer(lengths, lengths), atol=1e-9)
    plain = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert shape.uncentred == pytest.approx((plain @ plain.T)[~np.eye(90, dtype=bool)].mean(), abs=1e-12)
    assert shape.residue < 1e-12


def test_a_helix_rings_and_a_line_does_not():
    points, counts = helix_points()
    shape = geometry(points, counts, 6)
    assert shape.shares[:3].sum() == pytest.approx(1)
    assert shape.ringing > 1.0
    assert shape.uncentred > 0.99  # what centring shows would be hidden
    line = geometry(np.outer(counts, np.ones(40)) + 5, counts, 6)
    assert line.shares[0] == pytest.approx(1)
    assert line.dimensions == pytest.approx(1)
    assert line.ringing == pytest.approx(0, abs=1e-9)


def test_distances_by_hand():
    """Counts 0, 1, 4: the range is 4, so distances up to 2; only one pair is 1 apart."""
    cosine = np.array([[1, 0.5, -0.2], [0.5, 1, 0.1], [-0.2, 0.1, 1]])
    distances, means = cosine_by_distance(cosine, np.array([0, 1, 4]))
    assert distances.tolist() == [1]
    assert means.tolist() == [0.5]


def test_ringing_by_hand():
    """Falls to 0.1, rises to 0.6, falls deeper: the largest rise after any lower point is 0.5."""
    profile = [1.0, 0.5, 0.1, 0.6, -0.3, -0.2]
    apart = np.abs(np.subtract.outer(np.arange(11), np.arange(11)))
    cosine = np.array([*profile, *[0.0] * 5])[apart]
    assert ringing(cosine, np.arange(11)) == pytest.approx(0.5)
    assert np.isnan(ringing(cosine[:4, :4], np.arange(4)))


def test_points_without_variance_have_no_shares():
    shape = geometry(np.full((4, 5), 7.0), np.arange(4), 6)
    assert shape.total == 0
    assert np.isnan(shape.shares).all()
    assert np.isnan(shape.cosine).all()
    assert np.isnan(shape.dimensions)
    assert np.isnan(shape.ringing)
