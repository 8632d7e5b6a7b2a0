"""What a stopped evaluation keeps, and what of it is read back."""

import numpy as np
import pytest

from avae_jax.evaluation.parts import Parts, forget_parts


def test_a_part_is_made_once_for_its_key(tmp_path):
    made, lines = [], []

    def make():
        made.append(None)
        numbers = {"kl": np.float32(1.5), "none": float("nan"), "why": "not computed"}
        return numbers, {"a curve": np.arange(6.0).reshape(2, 3)}

    for key, count in (({"seed": 0}, 1), ({"seed": 0}, 1), ({"seed": 1}, 2), ({"seed": 0}, 3)):
        numbers, arrays = Parts(tmp_path, key, lines.append).get("samples", make)
        assert len(made) == count
        assert numbers["kl"] == 1.5
        assert np.isnan(numbers["none"])
        np.testing.assert_array_equal(arrays["a curve"], np.arange(6.0).reshape(2, 3))
    assert lines == ["samples: kept from an evaluation that was stopped"]
    mine = tmp_path / "unfinished" / "mine.npz"
    mine.parent.mkdir()
    mine.touch()
    forget_parts(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert list(tmp_path.iterdir()) == [mine.parent]


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b"junk"])
def test_a_damaged_part_is_made_again(tmp_path, damage):
    parts = Parts(tmp_path, {}, lambda line: None)
    parts.get("latent", lambda: (1, {}))
    (file,) = tmp_path.glob("*/latent.npz")
    file.write_bytes(damage(file.read_bytes()))
    assert parts.get("latent", lambda: (2, {}))[0] == 2
    assert parts.get("latent", lambda: (3, {}))[0] == 2
