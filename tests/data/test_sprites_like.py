import hashlib

import numpy as np
import pytest

from avae_jax.data import DataError, load_dataset
from avae_jax.data.sprites_like import render_sprites, sprite_masks


@pytest.fixture(scope="module")
def data():
    return load_dataset("sprites_like")


def test_shape_labels_and_splits(data):
    assert data.images.shape == (737_280, 64, 64, 1)
    assert data.images.dtype == np.uint8
    assert set(np.unique(data.images[::50_000])) == {0, 255}
    rows = np.array([0, 245_759, 245_760, 491_520, 737_279])
    np.testing.assert_array_equal(data.labels[rows], [0, 0, 1, 2, 2])
    rows = np.arange(0, 737_280, 997)
    np.testing.assert_array_equal(data.labels[rows], data.images.grid.factors(rows)[:, 0])
    assert data.num_classes == 3
    sizes = [len(getattr(data.splits, name)) for name in ("train", "validation", "test")]
    assert sizes == [697_280, 20_000, 20_000]


def test_seed_moves_validation_and_not_test(data):
    other = load_dataset("sprites_like", seed=1, validation_size=500)
    assert len(other.splits.validation) == 500
    np.testing.assert_array_equal(other.splits.test, data.splits.test)
    with pytest.raises(DataError, match="validation_size=0 must be at least 1"):
        load_dataset("sprites_like", validation_size=0)


def test_a_position_is_a_shift_and_nothing_is_cut_off(data):
    rng = np.random.default_rng(0)
    values = data.images.grid.factors(rng.integers(0, 737_280, 200))
    values[:4, 3:] = [[0, 0], [31, 0], [0, 31], [31, 31]]
    images = render_sprites(values)[..., 0]
    centered = np.concatenate([values[:, :3], np.full((200, 2), 16)], axis=1)
    for image, base, (x, y) in zip(
        images, render_sprites(centered)[..., 0], values[:, 3:], strict=True
    ):
        np.testing.assert_array_equal(image, np.roll(base, (y - 16, x - 16), axis=(0, 1)))
        # A roll would carry pixels from one border to the other.
        assert image.sum() == base.sum()
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) <= 32
    masks = sprite_masks()
    assert not masks[..., [0, -1], :].any()
    assert not masks[..., [0, -1]].any()


def test_views_of_each_shape():
    masks = sprite_masks().reshape(3, 6, 40, -1) > 0
    for shape, views in enumerate([10, 20, 40]):
        for scale in range(6):
            assert len(np.unique(masks[shape, scale], axis=0)) == views
    for shape, area in enumerate([22.4**2, np.pi * 15.6 * 8.3, 3.66 * 12.2**2]):
        counts = masks[shape].sum(axis=-1)
        # Grows with the square of the scale, the same at all angles, up to the pixels of the rim.
        np.testing.assert_allclose(counts[5], area, rtol=0.06)
        np.testing.assert_allclose(counts[0], area / 4, rtol=0.12)
        assert (np.diff(counts, axis=0) > 0).all()


def test_orientation_turns_against_the_clock():
    masks = sprite_masks() > 0
    quarter = np.rot90(masks[2, 5, 0], 1)
    np.testing.assert_array_equal(masks[2, 5, 10], quarter)


def test_equal_rows_give_equal_bytes(data):
    rows = np.random.default_rng(1).integers(0, 737_280, 500)
    digest = hashlib.sha256(data.images[rows].tobytes()).hexdigest()
    again = load_dataset("sprites_like").images
    alone = b"".join(again[row].tobytes() for row in rows)
    assert hashlib.sha256(alone).hexdigest() == digest
    masks = [hashlib.sha256(sprite_masks().tobytes()).hexdigest() for _ in range(2)]
    assert masks[0] == masks[1]
    assert data.fingerprint() == load_dataset("sprites_like", seed=3).fingerprint()


@pytest.mark.slow
def test_a_run_trains_on_rendered_images(data):
    from avae_jax.training.config import configure
    from avae_jax.training.setup import make_setup
    from avae_jax.training.trainer import Trainer

    config = configure(
        dataset="sprites_like", validation_size=32, test_size=32, method="ae",
        architecture="mlp", latent_dim=2, width=0.05, batch_size=16,
    )  # fmt: skip
    setup = make_setup(config)
    assert setup.dataset.name == "sprites_like"
    trainer = Trainer(setup, steps_per_dispatch=1)
    assert not trainer.feed.resident
    state = trainer.init()
    for batches, _ in zip(trainer.feed.dispatches(0, 0), range(2), strict=False):
        fetched = trainer.feed.fetch_steps(batches)
        np.testing.assert_array_equal(np.asarray(fetched.images), data.images[batches[0]])
        assert fetched.ids.shape == (16,)
        state, _ = trainer.advance(state, trainer.program.empty_metrics, fetched)
    assert int(state.step) == 2


def feed_of(images, *, resident):
    from avae_jax.data import ImageData, Splits
    from avae_jax.mesh import make_mesh
    from avae_jax.training.feed import Feed

    splits = Splits(*(np.array([row], np.int32) for row in range(3)))
    return Feed(
        ImageData("rendered", images, None, splits), mesh=make_mesh(), resident=resident,
        batch_size=8, steps_per_dispatch=1, seed=0,
    )  # fmt: skip


def test_images_are_rendered_as_the_trainer_asks_for_them(data):
    ids = np.random.default_rng(0).integers(0, 737_280, (2, 16), np.int32)
    fetched = feed_of(data.images, resident=False).fetch(ids)
    np.testing.assert_array_equal(np.asarray(fetched.images), data.images[ids])


def test_images_on_the_device_are_rendered_in_chunks():
    from avae_jax.data.factors import GridImages
    from avae_jax.factors import FactorGrid

    grid = FactorGrid(("a", "b"), (2, 4))

    def render(values):
        return np.repeat(grid.indices(values), 4).reshape(-1, 2, 2, 1).astype(np.uint8)

    lazy = GridImages(grid, image_shape=(2, 2, 1), render=render)
    ids = np.arange(8)[::-1].copy()
    fetched = feed_of(lazy, resident=True).fetch(ids)
    np.testing.assert_array_equal(fetched.images[fetched.ids], lazy[ids])
