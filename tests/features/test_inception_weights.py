import hashlib
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from avae_jax.features import (
    inception_features,
    inception_shapes,
    load_inception_weights,
    save_inception_npz,
)
from avae_jax.features.inception_weights import _read_pickle


def half_params():
    """Distinct values that float16 holds exactly: small files, and any mix-up shows."""
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(5 * 5 * 2048 * 448).astype(np.float16)
    params = {}
    for i, (key, shape) in enumerate(inception_shapes().items()):
        params[key] = pool[i : i + int(np.prod(shape))].reshape(shape)
        if key.endswith("kernel"):
            # A power of two near He's scale: activations then stay finite.
            power = np.round(0.5 * np.log2(2.0 / np.prod(shape[:3])))
            params[key] = params[key] * np.float16(2.0**power)
        elif key.endswith("var"):
            params[key] = np.abs(params[key]) + np.float16(0.5)
    return params


def nested(params):
    tree = {}
    for key, value in params.items():
        *path, last = key.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


TORCH_NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_state(params):
    import torch

    state = {}
    for key, value in params.items():
        layer, part, last = key.rsplit("/", 2)
        layer = layer.replace("/", ".")
        if last == "kernel":
            value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
        name = "weight" if last == "kernel" else TORCH_NAMES[last]
        state[f"{layer}.{part}.{name}"] = torch.from_numpy(value)
        if last == "var":
            state[f"{layer}.bn.num_batches_tracked"] = torch.tensor(0)
    state["fc.weight"] = torch.zeros(1008, 2048)
    state["fc.bias"] = torch.zeros(1008)
    state["AuxLogits.conv0.conv.weight"] = torch.zeros(128, 768, 1, 1)
    return state


@pytest.fixture(scope="module")
def params():
    return half_params()


@pytest.fixture
def npz(tmp_path, params):
    path = tmp_path / "weights.npz"
    np.savez(path, **params)
    return path


def write_pickle(path, tree, protocol=4):
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    return path


def assert_equal(weights, params):
    assert list(weights.params) == list(inception_shapes())
    for key, value in params.items():
        assert weights.params[key].dtype == np.float32
        np.testing.assert_array_equal(weights.params[key], value.astype(np.float32))


def test_npz(npz, params):
    weights = load_inception_weights(npz)
    assert_equal(weights, params)
    assert weights.sha256 == hashlib.sha256(npz.read_bytes()).hexdigest()
    assert weights.resize == "legacy_pytorch"


def test_pickle(tmp_path, npz, params):
    tree = nested(params)
    tree["fc"] = {"kernel": np.zeros((2048, 1008), np.float32), "bias": np.zeros(1008, np.float32)}
    weights = load_inception_weights(write_pickle(tmp_path / "weights.pickle", tree))
    assert_equal(weights, params)
    assert weights.params_sha256 == load_inception_weights(npz).params_sha256


def test_pth(tmp_path, npz, params):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save(torch_state(params), path)
    weights = load_inception_weights(path)
    assert_equal(weights, params)
    assert weights.params_sha256 == load_inception_weights(npz).params_sha256


def test_conversion_to_npz(tmp_path, params):
    weights = load_inception_weights(write_pickle(tmp_path / "a.pkl", nested(params)))
    save_inception_npz(weights, tmp_path / "b.npz")
    converted = load_inception_weights(tmp_path / "b.npz")
    assert_equal(converted, params)
    assert converted.params_sha256 == weights.params_sha256
    assert converted.sha256 != weights.sha256
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_inception_npz(weights, tmp_path / "b.pickle")
    with pytest.raises(ValueError, match="eight hex digits"):
        save_inception_npz(weights, tmp_path / "pt_inception-2015-12-05-6726825d.npz")


@pytest.mark.slow
def test_every_format_gives_the_same_features(tmp_path, npz, params):
    torch = pytest.importorskip("torch")
    torch.save(torch_state(params), tmp_path / "weights.pth")
    write_pickle(tmp_path / "weights.pickle", nested(params))
    images = np.random.default_rng(0).random((1, 8, 8, 3), dtype=np.float32)
    features = [
        inception_features(images, load_inception_weights(tmp_path / f"weights.{ending}"))
        for ending in ("npz", "pickle", "pth")
    ]
    assert features[0].std() > 0.0
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[0], features[2])


def test_a_hash_in_the_name_is_checked(tmp_path, npz, params):
    digits = hashlib.sha256(npz.read_bytes()).hexdigest()[:8]
    good = npz.rename(tmp_path / f"inception-{digits}.npz")
    assert_equal(load_inception_weights(good), params)
    wrong = good.rename(tmp_path / "inception-6726825d.npz")
    with pytest.raises(ValueError, match=f"sha256 {digits}.*name says 6726825d"):
        load_inception_weights(wrong)


KEY = "Mixed_6b/branch7x7_2/conv/kernel"


def test_bad_arrays_are_named(tmp_path, params):
    path = tmp_path / "weights.npz"

    def load(**changes):
        changed = {**params, **changes}
        np.savez(path, **{key: value for key, value in changed.items() if value is not None})
        return load_inception_weights(path)

    with pytest.raises(ValueError, match=f"lacks array {KEY};"):
        load(**{KEY: None})
    with pytest.raises(ValueError, match="has unknown array Mixed_8a/conv/kernel and 1 more"):
        load(**{"Mixed_8a/conv/kernel": np.zeros(1), "b": np.zeros(1)})
    shape = r"must have shape \(1, 7, 128, 128\), got \(7, 1, 128, 128\)"
    with pytest.raises(ValueError, match=f"{KEY} {shape}"):
        load(**{KEY: params[KEY].transpose(1, 0, 2, 3)})
    with pytest.raises(ValueError, match=f"{KEY} must be a floating point array, got int64"):
        load(**{KEY: params[KEY].astype(np.int64)})
    with pytest.raises(ValueError, match=f"{KEY} has values that are not finite"):
        load(**{KEY: np.full(params[KEY].shape, np.nan)})
    with pytest.raises(ValueError, match=f"{KEY} has values that are not finite"):
        load(**{KEY: np.full(params[KEY].shape, 1e300)})
    with pytest.raises(ValueError, match="Conv2d_1a_3x3/bn/var has negative"):
        load(**{"Conv2d_1a_3x3/bn/var": np.full(32, -1.0)})


def test_a_pth_of_another_net_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(2, 2, 1, 1)}, path)
    with pytest.raises(ValueError, match="lacks array Conv2d_1a_3x3/conv/kernel and 469 more"):
        load_inception_weights(path)
    integers = {**torch_state(half_params()), "Mixed_5b.branch1x1.bn.bias": torch.zeros(64).int()}
    torch.save(integers, path)
    with pytest.raises(ValueError, match="Mixed_5b/branch1x1/bn/bias must be a floating point"):
        load_inception_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list"):
        load_inception_weights(path)
    torch.save({"a": Evil(str(tmp_path / "marker"))}, path)
    with pytest.raises(ValueError, match="not a file of tensors by name"):
        load_inception_weights(path)
    assert not (tmp_path / "marker").exists()


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="do not exist"):
        load_inception_weights(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="not a file"):
        load_inception_weights(tmp_path)
    for ending, message in (
        ("npz", "not a readable .npz"),
        ("pickle", "not a readable pickle"),
        ("onnx", "must end in one of .npz, .pickle, .pkl, .pth"),
    ):
        path = tmp_path / f"weights.{ending}"
        path.write_bytes(b"not weights")
        with pytest.raises(ValueError, match=message):
            load_inception_weights(path)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="not a readable .npz: it holds Python objects"):
        load_inception_weights(tmp_path / "objects.npz")
    with open(tmp_path / "bare.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="one bare array"):
        load_inception_weights(tmp_path / "bare.npz")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_arrays_of_every_pickle_protocol(protocol, dtype):
    values = np.arange(-6.0, 6.0, 0.5).reshape(2, 3, 4).astype(dtype)
    arrays = {"rows": values, "columns": np.asfortranarray(values), "scalar": values[0, 0, 0:1]}
    content = pickle.dumps({"a": {"b": arrays}}, protocol=protocol)
    read = _read_pickle(content, "file")
    for key, value in arrays.items():
        np.testing.assert_array_equal(read[f"a/b/{key}"], value)


def test_numpy_1_names_are_read():
    values = np.arange(3.0)
    content = pickle.dumps({"a": values}, protocol=2)
    assert b"numpy._core" in content
    old = content.replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(_read_pickle(old, "file")["a"], values)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_runs_nothing(tmp_path, protocol):
    marker = tmp_path / "marker"
    tree = {"a": np.zeros(2), "b": {"c": Evil(marker)}}
    path = write_pickle(tmp_path / "weights.pickle", tree, protocol)
    with pytest.raises(ValueError, match="names (posix|nt).system, and only float arrays"):
        load_inception_weights(path)
    assert not marker.exists()
    # The file is a real attack: the ordinary unpickler runs it.
    pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": OrderedDict(b=1)}, "names collections.OrderedDict"),
        ({"a": np.float32(1.0)}, "names numpy.*multiarray.scalar"),
        ({"a": eval}, "names (__builtin__|builtins).eval"),
        ({"a": np.load}, "names numpy.load"),
        ({"a": np.zeros(2, np.int64)}, "array of dtype 'i8'"),
        ({"a": np.array([{}], dtype=object)}, "array of dtype 'O8'"),
        ({"a": np.zeros(2, [("x", "f4")])}, "array of dtype 'V4'"),
        ({1: np.zeros(2)}, "1 is not a name"),
        ({"a": 1.0}, "a/ is not a dict of arrays"),
        ([np.zeros(2)], "its content is not a dict of arrays"),
        ({"a": np.dtype("f4")}, "a/ is not a dict of arrays"),
    ],
)
def test_a_pickle_of_other_things_is_refused(tree, message):
    with pytest.raises(ValueError, match=message):
        _read_pickle(pickle.dumps(tree), "file")


def test_a_dict_that_holds_itself_is_refused():
    tree = {}
    tree["a"] = tree
    with pytest.raises(ValueError, match="a/a/a/a/a/ is not a dict"):
        _read_pickle(pickle.dumps(tree), "file")


def test_forged_states_are_refused():
    def forge(kind, state):
        class Forged:
            def __reduce__(self):
                return kind, (), state

        return pickle.dumps({"a": Forged()})

    # The array says it has a million values and holds eight bytes.
    array_state = (1, (1_000_000,), np.dtype("f8"), False, b"\0" * 8)
    with pytest.raises(ValueError, match="not a readable pickle"):
        _read_pickle(forge(np.ndarray, array_state), "file")
    with pytest.raises(ValueError, match="not a readable pickle"):
        _read_pickle(forge(np.ndarray, (1, (1,), "O", False, [1])), "file")
    with pytest.raises(ValueError, match="not a readable pickle"):
        _read_pickle(forge(np.dtype, (3, "|", None, None, None, -1, -1, 63)), "file")
    content = pickle.dumps({"a": np.zeros(9)})
    with pytest.raises(ValueError, match="not a readable pickle"):
        _read_pickle(content[:-20], "file")
