"""What a method is built for, without data."""

import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.mesh import make_mesh
from avae_jax.methods import Batch
from avae_jax.training import config as cfg
from avae_jax.training.setup import make_setting

NUM_IMAGES = 96


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_compiler):
    """Compile quickly."""


@pytest.fixture(scope="session")
def build():
    """Return a function `(**fields) -> method` for images of 4x4 pixels."""

    def build(*, num_devices=1, num_classes=0, image_shape=(4, 4, 1), **fields):
        config = cfg.configure(
            architecture="mlp", width=0.05, **{"latent_dim": 3, "batch_size": 16, **fields}
        )
        cfg.check_config(config)
        setting = make_setting(
            config, image_shape=image_shape, num_images=NUM_IMAGES, num_train=64,
            num_classes=num_classes, mesh=make_mesh(num_devices),
        )  # fmt: skip
        config.method.check_setting(setting)
        return config.method.make(setting)

    return build


@pytest.fixture(scope="session")
def make_batch():
    """Return a function `(method, mask) -> Batch` of random images."""

    def make(method, mask=None, *, seed=0, labels=None):
        rng = np.random.default_rng(seed)
        num_rows = 16 if mask is None else len(mask)
        images = jnp.asarray(rng.random((num_rows, *method.image_shape)), jnp.float32)
        ids = jnp.arange(num_rows, dtype=jnp.int32)
        return Batch(
            x=method.prepare(images),
            ids=ids,
            mask=jnp.ones(num_rows) if mask is None else jnp.asarray(mask, jnp.float32),
            labels=jnp.full(num_rows, -1) if labels is None else jnp.asarray(labels, jnp.int32),
        )

    return make
