"""What an entry of a registry is given, and what an option that names one accepts."""

import dataclasses
import functools
from typing import get_args, get_type_hints

import pytest

from avae_jax.likelihoods import LIKELIHOODS, make_likelihood
from avae_jax.methods import METHODS
from avae_jax.posteriors import POSTERIORS, make_posterior
from avae_jax.priors import PRIORS, make_prior
from avae_jax.registries import make, takes

KEY = None  # No entry below draws anything.


@dataclasses.dataclass
class Plain:
    """Takes one option."""

    size: int = 1


def test_an_entry_gets_the_options_it_takes():
    registry = {
        "plain": Plain,
        "bound": functools.partial(Plain, size=5),
        "none": lambda: "nothing",
        "rest": lambda first, **options: (first, options),
    }
    assert make(registry, "kind", "plain", size=3, other=4) == Plain(3)
    assert make(registry, "kind", "bound", other=4) == Plain(5)
    assert make(registry, "kind", "none", size=3) == "nothing"
    assert make(registry, "kind", "rest", 7, size=3, other=4) == (7, {})


def test_what_an_entry_cannot_take_is_not_hidden():
    """Arguments that every entry must take are passed on as they are."""
    with pytest.raises(TypeError):
        make({"none": lambda: None}, "kind", "none", 1)


def test_only_what_can_be_given_by_name_counts():
    assert takes(lambda size: size, "size")
    assert takes(lambda *, size: size, "size")
    assert not takes(lambda size, /: size, "size")
    # A data set's loader that passes its options on reads no path of the user's.
    assert not takes(lambda **options: options, "path")


@pytest.mark.parametrize(
    ("door", "kind", "known"),
    [
        (make_likelihood, "likelihood", "gaussian"),
        (make_posterior, "posterior", "gaussian"),
        (lambda name: make_prior(name, 2, KEY), "prior", "mixture"),
    ],
)
def test_an_unknown_name(door, kind, known):
    with pytest.raises(ValueError, match=f"{kind} must be .* got '{known[1:]}'; did you mean"):
        door(known[1:])


@pytest.mark.parametrize("method", METHODS)
def test_an_option_accepts_what_was_registered_since(method, monkeypatch):
    registries = {"likelihood": LIKELIHOODS, "posterior": POSTERIORS, "prior": PRIORS}
    for registry in registries.values():
        monkeypatch.setitem(registry, "of_a_user", registry["gaussian"])
    hints = get_type_hints(METHODS[method])
    found = registries.keys() & {field.name for field in dataclasses.fields(METHODS[method])}
    assert "likelihood" in found
    for name in found:
        assert get_args(hints[name]) == tuple(registries[name])
