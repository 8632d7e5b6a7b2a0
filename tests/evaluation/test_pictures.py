"""The pictures of a report: which codes are walked through."""

import numpy as np

from avae_jax.evaluation.pictures import traversal_codes


def test_a_walk_spans_the_codes_along_its_direction_and_moves_nowhere_else():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(5)
    directions = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    walk = traversal_codes(z, directions[0], 0.7, 11)
    np.testing.assert_allclose(walk @ directions[0], np.linspace(-1.75, 1.75, 11), atol=1e-12)
    rest = walk @ directions[1:].T
    np.testing.assert_allclose(rest, np.broadcast_to(z @ directions[1:].T, rest.shape))
