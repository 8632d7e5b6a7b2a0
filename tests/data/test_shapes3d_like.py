import hashlib

import numpy as np
import pytest

from avae_jax.data import load_dataset
from avae_jax.data.shapes3d_like import _cached_weights, render_shapes3d, weight_maps

FLOOR, WALL, OBJECT, LIGHT = range(4)


@pytest.fixture(scope="module")
def data():
    return load_dataset("shapes3d_like")


@pytest.fixture(scope="module")
def maps():
    return weight_maps()


def test_shape_labels_and_splits(data):
    assert data.images.shape == (480_000, 64, 64, 3)
    assert data.images.dtype == np.uint8
    rows = np.arange(0, 480_000, 997)
    np.testing.assert_array_equal(data.labels[rows], data.images.grid.factors(rows)[:, 4])
    assert data.num_classes == 4
    sizes = [len(getattr(data.splits, name)) for name in ("train", "validation", "test")]
    assert sizes == [440_000, 20_000, 20_000]


def test_every_geometry_is_different_and_whole(maps):
    assert maps.shape == (8, 4, 15, 64, 64, 4)
    assert len(np.unique(maps.reshape(480, -1), axis=0)) == 480
    total = maps.sum(axis=-1, dtype=int)
    assert total.min() > 60  # no ray leaves the room
    assert total.max() <= 255
    seen = maps[..., OBJECT] > 0
    assert not seen[..., [0, -1], :].any()
    assert not seen[..., [0, -1]].any()
    counts = seen.sum(axis=(-2, -1))
    assert counts.min() > 100
    assert (np.diff(counts, axis=0) > 0).all()  # a larger scale covers more
    # White light falls on the object only; floor and wall fill the rest.
    assert not maps[..., LIGHT][~seen].any()
    assert (maps[..., [FLOOR, WALL]].max(axis=-1)[~seen] > 0).all()
    # Two walls of different brightness at every angle but the middle ones, and never none.
    for angle in (0, 1, 2, 3, 11, 12, 13, 14):
        assert len(np.unique(maps[0, 3, angle, 0, :, WALL])) >= 2


def test_maps_follow_the_rays():
    """Looks at single pixels through the pinhole camera, by hand."""
    from avae_jax.data import shapes3d_like as module

    eye, rays = module._camera(0.0)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=0), 1.0)
    distance, normal = module._cast_sphere(eye, rays)
    hit = np.isfinite(distance)
    points = eye + rays[:, hit] * distance[hit]
    offset = points - np.array([0, 0, 0.85])[:, None]
    np.testing.assert_allclose(np.linalg.norm(offset, axis=0), 0.85, rtol=1e-12)
    np.testing.assert_allclose(normal[:, hit], offset / 0.85, atol=1e-12)
    # A ray through the centre is the closest approach: the set of hits is exactly those within
    # one radius of it.
    center = np.array([0, 0, 0.85])[:, None] - eye
    along = np.sum(center * rays, axis=0)
    gap = np.sqrt(np.sum(center**2, axis=0) - along**2)
    np.testing.assert_array_equal(hit, gap < 0.85)


@pytest.mark.parametrize(
    ("cast", "inside"),
    [
        ("_cast_cube", lambda p: np.max(np.abs([p[0], p[1], p[2] - 0.68]), axis=0) / 0.68),
        (
            "_cast_cylinder",
            lambda p: np.maximum(np.hypot(p[0], p[1]) / 0.68, np.abs(p[2] - 0.75) / 0.75),
        ),
        (
            "_cast_capsule",
            lambda p: (
                np.sqrt(p[0] ** 2 + p[1] ** 2 + (p[2] - np.clip(p[2], 0.52, 1.3)) ** 2) / 0.52
            ),
        ),
    ],
)
def test_rays_end_on_the_surface(cast, inside):
    """Marches along each ray: `inside` is below 1 in the object and 1 on its surface."""
    from avae_jax.data import shapes3d_like as module

    eye, rays = module._camera(0.3)
    rays = rays[:, ::37]
    distance, normal = getattr(module, cast)(eye, rays)
    hit = np.isfinite(distance)
    assert 10 < hit.sum() < hit.size
    steps = np.linspace(0, 8, 2001)[:, None, None]
    path = eye.ravel()[None, :, None] + steps * rays[None]
    marched = inside(np.moveaxis(path, 1, 0)) < 1
    # Grazing rays may fall between two steps.
    assert np.mean(marched.any(axis=0) != hit) < 0.02
    points = eye + rays[:, hit] * distance[hit]
    np.testing.assert_allclose(inside(points), 1.0, atol=1e-9)
    assert (inside(points + 1e-3 * normal[:, hit]) > 1).all()
    np.testing.assert_allclose(np.linalg.norm(normal[:, hit], axis=0), 1.0)


@pytest.mark.parametrize(("factor", "part"), [(0, FLOOR), (1, WALL), (2, OBJECT)])
def test_a_hue_changes_only_its_own_pixels(factor, part, data, maps):
    rng = np.random.default_rng(factor)
    values = data.images.grid.factors(rng.integers(0, 480_000, 60))
    changed = values.copy()
    changed[:, factor] = (values[:, factor] + rng.integers(1, 10, 60)) % 10
    different = np.any(render_shapes3d(values) != render_shapes3d(changed), axis=-1)
    own = maps[tuple(values[:, 3:].T)][..., part]
    assert not different[own == 0].any()
    # Ten hues are far apart: where the part is well lit its change is seen.
    assert different[own > 60].all()


def test_geometry_factors_leave_the_colours(data):
    values = data.images.grid.factors(np.random.default_rng(0).integers(0, 480_000, 20))
    for factor in (3, 4, 5):
        changed = values.copy()
        changed[:, factor] = (values[:, factor] + 1) % data.images.grid.sizes[factor]
        before, after = render_shapes3d(values), render_shapes3d(changed)
        assert np.any(before != after, axis=(1, 2, 3)).all()
        # The bottom left corner is floor in every geometry.
        np.testing.assert_array_equal(before[:, -1, 0], after[:, -1, 0])


def test_an_image_is_the_rounded_sum_of_its_parts(data, maps):
    import colorsys

    values = data.images.grid.factors(np.random.default_rng(4).integers(0, 480_000, 30))
    hues = np.array([colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)])
    colours = np.concatenate([np.round(255 * hues)[values[:, :3]], np.full((30, 1, 3), 255)], 1)
    exact = np.einsum("bhwk,bkc->bhwc", maps[tuple(values[:, 3:].T)].astype(float), colours) / 255
    np.testing.assert_allclose(render_shapes3d(values), exact, atol=0.5 + 1e-4)


def test_equal_rows_give_equal_bytes(data, maps):
    # The cached maps were cast in another call than those of the fixture.
    cached = _cached_weights().astype(np.uint8)
    assert hashlib.sha256(cached.tobytes()).digest() == hashlib.sha256(maps.tobytes()).digest()
    rows = np.random.default_rng(1).integers(0, 480_000, 300)
    together = hashlib.sha256(data.images[rows].tobytes()).digest()
    again = load_dataset("shapes3d_like").images
    alone = b"".join(again[row].tobytes() for row in rows)
    assert hashlib.sha256(alone).digest() == together
