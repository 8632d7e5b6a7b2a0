import numpy as np
import pytest

from avae_jax.metrics.pca_features import fit_pca


def images(n=300, seed=0):
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((6, 5 * 4 * 2)) * np.array([6, 5, 4, 3, 2, 1])[:, None]
    return (rng.standard_normal((n, 6)) @ basis + 3.0).reshape(n, 5, 4, 2)


def test_equals_the_singular_value_decomposition():
    x = images()
    pca = fit_pca(x, num_components=3)
    flat = x.reshape(300, -1)
    left, values, right = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(pca.explained_variance, values[:3] ** 2 / 299, rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(pca.components * right[:3], axis=1)), 1.0, rtol=1e-9)
    np.testing.assert_allclose(
        np.abs(pca.transform(x)), np.abs(left[:, :3] * values[:3]), atol=1e-7 * values[0]
    )
    assert pca.explained_share == pytest.approx(np.sum(values[:3] ** 2) / np.sum(values**2))


def test_components_are_orthonormal_and_keep_distances():
    x = images()
    pca = fit_pca(x, num_components=6)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(6), atol=1e-10)
    assert pca.explained_share == pytest.approx(1.0)
    z = pca.transform(x)
    assert z.dtype == np.float64
    np.testing.assert_allclose(
        np.linalg.norm(z[0] - z[1:], axis=1),
        np.linalg.norm((x[0] - x[1:]).reshape(299, -1), axis=1),
        rtol=1e-9,
    )


def test_many_pixels_repeat_for_a_seed():
    x = np.random.default_rng(1).standard_normal((60, 1100)).astype(np.float32)
    first, second = (fit_pca(x, num_components=4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.components, second.components)


def test_the_test_set_does_not_move_the_components():
    pca = fit_pca(images(), num_components=2)
    other = images(50, seed=9)
    np.testing.assert_allclose(pca.transform(other)[7], pca.transform(other[7:8])[0], rtol=1e-10)


def test_constant_images():
    pca = fit_pca(np.ones((5, 3, 3, 1)), num_components=2)
    np.testing.assert_array_equal(pca.explained_variance, 0.0)
    assert np.isnan(pca.explained_share)
    np.testing.assert_array_equal(pca.transform(np.ones((2, 3, 3, 1))), 0.0)


def test_bad_input_is_named():
    x = images(10)
    with pytest.raises(ValueError, match="num_components must be an integer from 1 to 9"):
        fit_pca(x)
    with pytest.raises(ValueError, match="num_components must be .* got 0"):
        fit_pca(x, num_components=0)
    with pytest.raises(ValueError, match="train_images has 1 rows, at least 2"):
        fit_pca(x[:1], num_components=1)
    with pytest.raises(ValueError, match="not finite"):
        fit_pca(x * np.nan, num_components=1)
    pca = fit_pca(x, num_components=1)
    with pytest.raises(ValueError, match="images have 12 pixels but the components were fitted"):
        pca.transform(np.zeros((2, 4, 3, 1)))
