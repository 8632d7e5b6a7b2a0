import numpy as np
import pytest

from avae_jax.features import InceptionWeights, inception_features, inception_shapes
from avae_jax.features.inception import _mean_pool, _prepare

BATCH = 2


def random_params(seed=0):
    rng = np.random.default_rng(seed)
    params = {}
    for key, shape in inception_shapes().items():
        if key.endswith("kernel"):
            scale = np.float32(np.sqrt(2.0 / np.prod(shape[:3])))
            params[key] = scale * rng.standard_normal(shape, dtype=np.float32)
        elif key.endswith(("scale", "var")):
            params[key] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            params[key] = 0.1 * rng.standard_normal(shape, dtype=np.float32)
    return params


@pytest.fixture(scope="module")
def weights():
    return InceptionWeights(random_params(), "0" * 64, "0" * 64)


def test_shapes_are_those_of_inception_v3():
    shapes = inception_shapes()
    assert len(shapes) == 94 * 5
    # torchvision's inception_v3 without its two heads: 21,785,568 trained, and 2 x 17,216 in the
    # batch norms' running moments.
    trained = {k: s for k, s in shapes.items() if not k.endswith(("mean", "var"))}
    assert sum(int(np.prod(s)) for s in trained.values()) == 21_785_568
    assert sum(int(np.prod(s)) for s in shapes.values()) == 21_785_568 + 2 * 17_216
    assert shapes["Conv2d_1a_3x3/conv/kernel"] == (3, 3, 3, 32)
    assert shapes["Mixed_6c/branch7x7dbl_2/conv/kernel"] == (7, 1, 160, 160)
    assert shapes["Mixed_7c/branch_pool/conv/kernel"] == (1, 1, 2048, 192)
    assert shapes["Mixed_7c/branch_pool/bn/var"] == (192,)


def test_shapes_cannot_be_changed_by_a_caller():
    inception_shapes().clear()
    assert len(inception_shapes()) == 470


def test_features_of_an_image_do_not_depend_on_its_batch(weights):
    images = np.random.default_rng(1).random((3, 20, 24, 3), dtype=np.float32)
    features = inception_features(images, weights, batch_size=BATCH)
    assert features.shape == (3, 2048)
    assert features.dtype == np.float32
    assert features.std() > 0.0
    assert np.abs(features[0] - features[1]).max() > 0.01 * features.max()
    # The last image is now in a full batch, the first alone in a padded one.
    turned = inception_features(images[::-1], weights, batch_size=BATCH)[::-1]
    np.testing.assert_allclose(turned, features, rtol=1e-5, atol=1e-6 * features.max())


def test_grey_and_uint8_images(weights):
    grey = np.random.default_rng(2).integers(0, 256, (BATCH, 12, 12, 1), dtype=np.uint8)
    features = inception_features(grey, weights, batch_size=BATCH)
    colour = np.repeat(grey / 255.0, 3, axis=3)
    expected = inception_features(colour, weights, batch_size=BATCH)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6 * expected.max())


@pytest.mark.parametrize(("height", "width"), [(1, 2), (28, 33), (299, 299), (500, 310)])
def test_resize_is_linear_interpolation_between_pixel_centres(height, width):
    image = np.random.default_rng(0).random((1, height, width, 1))

    def along(line):
        position = (np.arange(299) + 0.5) * line.size / 299 - 0.5
        return np.interp(position, np.arange(line.size), line)

    expected = np.apply_along_axis(along, 1, np.apply_along_axis(along, 2, image))
    prepared = np.asarray(_prepare(image.astype(np.float32)))
    assert prepared.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(prepared, np.repeat(2 * expected - 1, 3, axis=3), atol=1e-5)


def test_mean_pool_leaves_the_padding_out():
    x = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32)
    pooled = np.asarray(_mean_pool(x))
    for i in range(4):
        for j in range(5):
            window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            np.testing.assert_allclose(pooled[:, i, j], window.mean(axis=(1, 2)), rtol=1e-5)


def test_bad_input_is_named(weights):
    def features(images, **options):
        return inception_features(images, weights, **options)

    good = np.zeros((2, 8, 8, 3), np.float32)
    with pytest.raises(ValueError, match=r"images must have shape \[n, height"):
        features(good[0])
    with pytest.raises(ValueError, match="no axis empty"):
        features(good[:0])
    with pytest.raises(ValueError, match="1 or 3 channels"):
        features(good[..., :2])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got \[-1, 0\]"):
        features(good - np.eye(8, dtype=np.float32)[..., None])
    with pytest.raises(ValueError, match="got .nan, nan."):
        features(np.full_like(good, np.nan))
    with pytest.raises(TypeError, match="got int32"):
        features(good.astype(np.int32))
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        features(good, batch_size=0)
    with pytest.raises(ValueError, match="weights.resize must be 'legacy_pytorch'"):
        inception_features(good, weights._replace(resize="clean"))


def torch_features(images, params):
    """The net written again on torch, from the definition in pytorch-fid."""
    import torch
    import torch.nn.functional as F

    def tensor(key):
        value = params[key]
        if value.ndim == 4:
            value = np.ascontiguousarray(np.transpose(value, (3, 2, 0, 1)))
        return torch.from_numpy(value)

    def unit(x, name, stride=1, padding=0):
        x = F.conv2d(x, tensor(f"{name}/conv/kernel"), stride=stride, padding=padding)
        mean, var, weight, bias = (
            tensor(f"{name}/bn/{k}") for k in ("mean", "var", "scale", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, weight, bias, training=False, eps=0.001))

    def average(x):
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def a(x, n):
        b5 = unit(unit(x, f"{n}/branch5x5_1"), f"{n}/branch5x5_2", padding=2)
        b3 = unit(x, f"{n}/branch3x3dbl_1")
        b3 = unit(b3, f"{n}/branch3x3dbl_2", padding=1)
        b3 = unit(b3, f"{n}/branch3x3dbl_3", padding=1)
        pool = unit(average(x), f"{n}/branch_pool")
        return torch.cat([unit(x, f"{n}/branch1x1"), b5, b3, pool], 1)

    def b(x, n):
        b3 = unit(x, f"{n}/branch3x3dbl_1")
        b3 = unit(b3, f"{n}/branch3x3dbl_2", padding=1)
        b3 = unit(b3, f"{n}/branch3x3dbl_3", stride=2)
        return torch.cat([unit(x, f"{n}/branch3x3", stride=2), b3, F.max_pool2d(x, 3, 2)], 1)

    def c(x, n):
        b7 = unit(x, f"{n}/branch7x7_1")
        b7 = unit(b7, f"{n}/branch7x7_2", padding=(0, 3))
        b7 = unit(b7, f"{n}/branch7x7_3", padding=(3, 0))
        d7 = unit(x, f"{n}/branch7x7dbl_1")
        for i, padding in ((2, (3, 0)), (3, (0, 3)), (4, (3, 0)), (5, (0, 3))):
            d7 = unit(d7, f"{n}/branch7x7dbl_{i}", padding=padding)
        pool = unit(average(x), f"{n}/branch_pool")
        return torch.cat([unit(x, f"{n}/branch1x1"), b7, d7, pool], 1)

    def d(x, n):
        b3 = unit(unit(x, f"{n}/branch3x3_1"), f"{n}/branch3x3_2", stride=2)
        b7 = unit(x, f"{n}/branch7x7x3_1")
        b7 = unit(b7, f"{n}/branch7x7x3_2", padding=(0, 3))
        b7 = unit(b7, f"{n}/branch7x7x3_3", padding=(3, 0))
        b7 = unit(b7, f"{n}/branch7x7x3_4", stride=2)
        return torch.cat([b3, b7, F.max_pool2d(x, 3, 2)], 1)

    def e(x, n, pooled):
        b3 = unit(x, f"{n}/branch3x3_1")
        b3a = unit(b3, f"{n}/branch3x3_2a", padding=(0, 1))
        b3b = unit(b3, f"{n}/branch3x3_2b", padding=(1, 0))
        d3 = unit(unit(x, f"{n}/branch3x3dbl_1"), f"{n}/branch3x3dbl_2", padding=1)
        d3a = unit(d3, f"{n}/branch3x3dbl_3a", padding=(0, 1))
        d3b = unit(d3, f"{n}/branch3x3dbl_3b", padding=(1, 0))
        pool = unit(pooled, f"{n}/branch_pool")
        return torch.cat([unit(x, f"{n}/branch1x1"), b3a, b3b, d3a, d3b, pool], 1)

    with torch.no_grad():
        x = torch.from_numpy(np.transpose(images, (0, 3, 1, 2)).copy())
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        x = unit(2 * x - 1, "Conv2d_1a_3x3", stride=2)
        x = unit(x, "Conv2d_2a_3x3")
        x = F.max_pool2d(unit(x, "Conv2d_2b_3x3", padding=1), 3, 2)
        x = F.max_pool2d(unit(unit(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = a(x, name)
        x = b(x, "Mixed_6a")
        for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = c(x, name)
        x = d(x, "Mixed_7a")
        x = e(x, "Mixed_7b", average(x))
        x = e(x, "Mixed_7c", F.max_pool2d(x, 3, stride=1, padding=1))
        return F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0].numpy()


@pytest.mark.slow
def test_features_equal_torch(weights):
    pytest.importorskip("torch")
    images = np.random.default_rng(3).random((BATCH, 40, 52, 3), dtype=np.float32)
    expected = torch_features(images, weights.params)
    features = inception_features(images, weights, batch_size=BATCH)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch_size(weights):
    images = np.random.default_rng(4).random((4, 16, 16, 3), dtype=np.float32)
    features = inception_features(images, weights, batch_size=BATCH)
    for batch_size in (1, 64):
        other = inception_features(images, weights, batch_size=batch_size)
        np.testing.assert_allclose(other, features, rtol=1e-5, atol=1e-6 * features.max())
