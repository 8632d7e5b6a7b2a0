import numpy as np
import pytest
from scipy.spatial.distance import cdist

from avae_jax.metrics.neighbors import nearest_distances, nearest_neighbors, square_distances


@pytest.mark.parametrize(("n", "m"), [(1, 1), (255, 7), (256, 300), (257, 1)])
def test_square_distances_equal_scipy(n, m):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, 5)), rng.standard_normal((m, 5))
    for other, upper in ((y, False), (x, False), (x, True)):
        expected = cdist(x, other, "sqeuclidean")
        for rows, square in square_distances(x, other, upper=upper):
            wanted = expected[rows, rows.start if upper else 0 :]
            np.testing.assert_allclose(square, wanted, rtol=1e-9, atol=1e-14)


def test_equal_rows_have_distance_zero():
    x = np.repeat(100.0 + np.random.default_rng(0).standard_normal((3, 7)), 2, axis=0)
    distances, indices = nearest_neighbors(x, x, k=2, exclude_own=True)
    np.testing.assert_array_equal(indices[:, 0], [1, 0, 3, 2, 5, 4])
    np.testing.assert_array_equal(distances == 0.0, [[True, False]] * 6)
    x -= x.mean(axis=0)
    for _, square in square_distances(x, x.copy()):
        assert np.array_equal(square == 0.0, np.kron(np.eye(3), np.ones((2, 2))) == 1.0)


@pytest.mark.parametrize(("m", "k"), [(40, 3), (1000, 1), (1300, 9), (1300, 200)])
def test_neighbors_are_sorted_and_the_nearest(m, k):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((m, 4))
    distances, indices = nearest_neighbors(x, y, k=min(k, m))
    full = cdist(x, y)
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :k], rtol=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 8, 1), (511, 300, 4), (513, 255, 3), (600, 256, 64), (9, 1000, 2)]
)
@pytest.mark.parametrize("k", [1, 5, 8])
def test_neighbour_distances_equal_scipy(n, m, d, k):
    rng = np.random.default_rng(0)
    queries, points = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    expected = np.sort(cdist(queries, points), axis=1)[:, k - 1]
    np.testing.assert_allclose(nearest_distances(queries, points, k=k), expected, rtol=1e-9)


@pytest.mark.parametrize("m", [7, 513, 1300])
def test_neighbours_without_the_point_itself(m):
    points = np.random.default_rng(0).standard_normal((m, 3))
    expected = np.sort(cdist(points, points), axis=1)[:, 5]
    result = nearest_distances(points, points, k=5, exclude_own=True)
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_neighbours_in_one_group_of_columns():
    # The nearest ones all sit 128 columns apart: one group holds several of them.
    points = np.full((1280, 1), 100.0)
    points[::128, 0] = np.arange(10)
    assert nearest_distances(np.zeros((1, 1)), points, k=7) == pytest.approx(6.0)
