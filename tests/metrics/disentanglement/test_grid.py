import itertools

import numpy as np
import pytest

from avae_jax.metrics.disentanglement import CodeLookup, FactorGrid

GRID = FactorGrid(("shape", "scale", "x"), (3, 1, 5))


def test_order_is_c_with_the_last_factor_fastest():
    points = np.asarray(list(itertools.product(range(3), range(1), range(5))))
    np.testing.assert_array_equal(GRID.factors(np.arange(15)), points)
    np.testing.assert_array_equal(GRID.indices(points), np.arange(15))
    assert GRID.num_points == 15


def test_round_trip_at_full_size():
    grid = FactorGrid(("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32))
    indices = np.arange(grid.num_points).reshape(-1, 32)
    np.testing.assert_array_equal(grid.indices(grid.factors(indices)), indices)


def test_fixed_batches_share_their_factor_and_vary_the_rest():
    grid = FactorGrid(("a", "b", "c"), (4, 3, 5))
    fixed = np.arange(3).repeat(200)
    points = grid.factors(grid.sample_fixed(np.random.default_rng(0), fixed, 32))
    for k in range(3):
        batches = points[fixed == k]
        assert (batches[:, :, k] == batches[:, :1, k]).all()
        # Shared values are uniform: 200 draws, k = 5 standard errors of a share.
        shares = np.bincount(batches[:, 0, k], minlength=grid.sizes[k]) / 200
        p = 1 / grid.sizes[k]
        assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / 200)).all()
        for other in {0, 1, 2} - {k}:
            shares = np.bincount(batches[..., other].ravel()) / 6400
            p = 1 / grid.sizes[other]
            assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / 6400)).all()


def test_each_point_is_encoded_once_with_one_batch_shape():
    calls = []

    def encode(indices):
        calls.append(indices)
        return np.stack([indices, -indices], axis=1).astype(np.float32)

    lookup = CodeLookup(encode, GRID, chunk_size=4)
    for _ in range(3):
        codes = lookup(np.asarray([[0, 7], [7, 14]]))
    np.testing.assert_array_equal(codes[..., 0], [[0, 7], [7, 14]])
    assert codes.dtype == np.float32
    assert lookup.latent_dim == 2
    lookup(np.arange(15))
    assert {call.shape for call in calls} == {(4,)}
    # The last chunk of each pass is padded with its first index, so distinct indices count.
    assert sum(len(set(call.tolist())) for call in calls) == 15


def test_arrays_and_functions_agree_with_and_without_cache():
    codes = np.random.default_rng(0).standard_normal((15, 4))
    points = np.asarray([[3, 1], [14, 3]])
    for source, cache in ((codes, True), (codes.__getitem__, True), (codes.__getitem__, False)):
        np.testing.assert_array_equal(CodeLookup(source, GRID, cache=cache)(points), codes[points])


@pytest.mark.parametrize(
    ("names", "sizes", "match"),
    [
        (("a",), (2, 3), "one size per name"),
        ((), (), "one size per name"),
        (("a", "a"), (2, 3), "names must differ"),
        (("a", "b"), (2, 0), "at least 1"),
    ],
)
def test_bad_grids_are_refused(names, sizes, match):
    with pytest.raises(ValueError, match=match):
        FactorGrid(names, sizes)


def test_bad_points_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 15\), got \[0, 15\]"):
        GRID.factors([0, 15])
    with pytest.raises(ValueError, match=r"x must lie in \[0, 5\), got \[5, 5\]"):
        GRID.indices([[0, 0, 5]])
    with pytest.raises(ValueError, match="3 columns"):
        GRID.indices([[0, 0]])


def test_factors_are_looked_up_and_single_values_refused():
    np.testing.assert_array_equal(GRID.positions(("x", 0)), [2, 0])
    with pytest.raises(ValueError, match=r"scale has one value only.*\('shape', 'x'\)"):
        GRID.positions()
    with pytest.raises(ValueError, match="'hue' is not one of"):
        GRID.positions(("hue",))
    with pytest.raises(ValueError, match="3 is not one of"):
        GRID.positions((3,))
    with pytest.raises(ValueError, match="different"):
        GRID.positions((0, "shape"))
    with pytest.raises(ValueError, match="sequence"):
        GRID.positions("shape")


def test_bad_codes_are_refused():
    with pytest.raises(ValueError, match=r"\[15, latent_dim\]"):
        CodeLookup(np.zeros((14, 2)), GRID)
    with pytest.raises(ValueError, match="1 of 15 rows that are not finite"):
        CodeLookup(np.diag([np.nan] + [0.0] * 14)[:, :1], GRID)
    lookup = CodeLookup(lambda indices: np.full((indices.size, 2), np.inf), GRID)
    with pytest.raises(ValueError, match="not finite"):
        lookup([0])
    with pytest.raises(ValueError, match=r"\[0, 15\), got \[-1, 3\]"):
        lookup([3, -1])
    lookup = CodeLookup(lambda indices: np.zeros(indices.size), GRID)
    with pytest.raises(ValueError, match="one row per index"):
        lookup([0])
    with pytest.raises(ValueError, match="chunk_size"):
        CodeLookup(np.zeros((15, 2)), GRID, chunk_size=0)
