"""Read and write the weights of the Inception net, without running anything a file says."""

import hashlib
import io
import os
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from avae_jax.features.arrays import first_line, hash_arrays, read_npz
from avae_jax.features.checks import check_arrays
from avae_jax.features.inception import InceptionWeights, inception_shapes
from avae_jax.files import written_whole

# The classifier heads, which some files hold and the features do not use.
_UNUSED = ("fc/", "AuxLogits/")
_TORCH_NAMES = {
    "conv.weight": "conv/kernel",
    "bn.weight": "bn/scale",
    "bn.bias": "bn/bias",
    "bn.running_mean": "bn/mean",
    "bn.running_var": "bn/var",
}
# torch hub ends a file name in the first digits of the file's sha256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})$", re.IGNORECASE)


def load_inception_weights(path) -> InceptionWeights:
    """Load Inception weights from a file the user has.

    Nothing is downloaded. Three formats are read:

    - `.npz` with the keys and shapes of `inception_shapes()`, as `save_inception_npz` writes;
    - `.pickle` or `.pkl`, the file `inception_v3_weights_fid.pickle` of jax-fid, a nested dict
      `{layer: {"conv": {"kernel"}, "bn": {"scale", "bias", "mean", "var"}}}`. Only dicts, text,
      numbers and float arrays are read; a file that names anything else is refused before it
      runs;
    - `.pth`, the file `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, which needs torch.

    The heads `fc` and `AuxLogits` and torch's `num_batches_tracked` are left out. A name that ends
    in a hyphen and eight hex digits must give the first digits of the file's sha256.

    Args:
      path: file name.

    Returns:
      `InceptionWeights` with float32 arrays.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: a `.pth` file without torch.
      ValueError: an unknown ending, a file that is damaged or not of its format, a hash that
        differs from the name, a pickle that holds more than arrays, or an array that is missing,
        unknown, mis-shaped, not floating point or not finite.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Inception weights {path} do not exist or are not a file")
    stem, ending = os.path.splitext(path)
    readers = {".npz": read_npz, ".pickle": _read_pickle, ".pkl": _read_pickle, ".pth": _read_pth}
    if ending not in readers:
        raise ValueError(f"Inception weights {path} must end in one of {', '.join(readers)}")
    # Read once, so that what was hashed is what is parsed.
    with open(path, "rb") as file:
        content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    expected = _HASH_IN_NAME.search(stem)
    if expected and not sha256.startswith(expected[1].lower()):
        raise ValueError(
            f"{path} has sha256 {sha256[:8]}..., its name says {expected[1]}: fetch it again, or "
            "rename it if these digits are not its hash"
        )
    arrays = readers[ending](content, path)
    arrays = {key: value for key, value in arrays.items() if not key.startswith(_UNUSED)}
    params = check_arrays(arrays, inception_shapes(), source=path)
    for key, value in params.items():
        if key.endswith("/bn/var") and value.min() < 0.0:
            raise ValueError(f"{path}: {key} has negative variances; the file is damaged")
    return InceptionWeights(params, sha256, hash_arrays(params))


def save_inception_npz(weights: InceptionWeights, path) -> None:
    """Write weights as `.npz`, which `load_inception_weights` reads without torch or pickle.

    Args:
      weights: from `load_inception_weights`.
      path: file name ending in `.npz`; an existing file is replaced.

    Raises:
      ValueError: another ending, or a name that ends in the hash of another file.
    """
    path = os.path.expanduser(os.fspath(path))
    stem, ending = os.path.splitext(path)
    if ending != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    if _HASH_IN_NAME.search(stem):
        raise ValueError(
            f"path {path} ends in eight hex digits, which would be read as the new file's sha256; "
            "leave them out"
        )
    arrays: dict[str, Any] = dict(weights.params)
    with written_whole(path) as file:
        np.savez(file, **arrays)


def _read_pth(content: bytes, source: str) -> dict:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{source} needs torch to be read; install torch, or convert the file once elsewhere "
            "with save_inception_npz"
        ) from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        # torch's own words advise to run what is in the file.
        raise ValueError(
            f"{source} is not a file of tensors by name, or holds other objects; nothing was run"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{source} holds a {type(state).__name__}, not tensors by name")
    arrays = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{source}: {name!r} is not a named tensor")
        if name.endswith(".num_batches_tracked"):
            continue
        parts = name.rsplit(".", 2)
        tail = ".".join(parts[-2:])
        key = name.replace(".", "/")
        if len(parts) == 3 and tail in _TORCH_NAMES:
            key = f"{parts[0].replace('.', '/')}/{_TORCH_NAMES[tail]}"
        # NumPy has no bfloat16; integers stay what they are and are refused later.
        value = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        # Output, input, height, width in torch; height, width, input, output here.
        arrays[key] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    return arrays


def _read_pickle(content: bytes, source: str) -> dict:
    try:
        tree = _ArrayUnpickler(io.BytesIO(content)).load()
    except _RefusedError as error:
        raise ValueError(f"{source} {error}") from None
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{source} is not a readable pickle: {first_line(error)}") from error
    arrays = {}
    _flatten(tree, "", arrays, source)
    return arrays


def _flatten(tree, prefix, arrays, source, depth=0):
    # Deeper than any layer: a pickle can hold a dict that holds itself.
    if not isinstance(tree, dict) or depth > 4:
        raise ValueError(f"{source}: {prefix or 'its content'} is not a dict of arrays")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise ValueError(f"{source}: {prefix}{key!r} is not a name")
        if isinstance(value, _PickledArray):
            arrays[prefix + key] = value.value
        else:
            _flatten(value, f"{prefix}{key}/", arrays, source, depth + 1)


class _RefusedError(Exception):
    """A pickle names something other than a float array."""


class _PickledArray:
    """Stands for `numpy.ndarray` while a pickle is read."""

    value: np.ndarray | None = None

    def __setstate__(self, state):
        _, shape, dtype, column_major, data = state
        self.fill(data, dtype, shape, "F" if column_major else "C")

    def fill(self, data, dtype, shape, order):
        if not isinstance(dtype, _PickledDtype):
            raise TypeError("an array without a dtype")
        array = np.frombuffer(data, dtype.value)
        self.value = array.reshape(shape, order=order)


class _PickledDtype:
    """Stands for `numpy.dtype` while a pickle is read; floats only."""

    def __init__(self, name, *_):
        if name not in ("f2", "f4", "f8"):
            raise _RefusedError(f"holds an array of dtype {name!r}: only float arrays are read")
        self.value = np.dtype(name)

    def __setstate__(self, state):
        self.value = self.value.newbyteorder(">" if state[1] == ">" else "<")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads nested containers of float arrays; refuses any other global without importing it.

    NumPy's own names are mapped to the stand-ins here, so that a file can call nothing else: the
    state of a real dtype or array may be forged.
    """

    def find_class(self, module_name, global_name):
        # NumPy 2 moved numpy.core to numpy._core.
        known = {
            "numpy.ndarray": _PickledArray,
            "numpy.dtype": _PickledDtype,
            "numpy.core.multiarray._reconstruct": self._reconstruct,
            "numpy.core.numeric._frombuffer": self._from_buffer,
            "_codecs.encode": self._encode,
        }
        name = f"{module_name}.{global_name}"
        found = known.get(name.replace("numpy._core.", "numpy.core.", 1))
        if found is None:
            raise _RefusedError(
                f"names {name}, and only float arrays are read from a pickle; nothing was run, "
                "do not load it by other means unless you trust its origin"
            )
        return found

    def _reconstruct(self, kind, shape, code):
        return _PickledArray()

    def _from_buffer(self, data, dtype, shape, order):
        array = _PickledArray()
        array.fill(data, dtype, shape, order)
        return array

    def _encode(self, text, codec):
        # How protocols 0 to 2 write bytes.
        if codec != "latin1":
            raise _RefusedError(f"encodes text as {codec!r}: only float arrays are read")
        return text.encode("latin1")
