import pytest

from avae_jax.data import DATASETS, DataError, load_dataset, prepare_dataset


@pytest.mark.parametrize("function", [load_dataset, prepare_dataset])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst", "did you mean 'mnist'"),
        ("celeba", "did you mean 'celeb_a'"),
        ("qqqqqqq", "known: digits"),
    ],
)
def test_unknown_name(function, name, message):
    with pytest.raises(DataError, match=message):
        function(name)


def test_path_for_a_dataset_without_one():
    with pytest.raises(DataError, match="does not belong to dataset 'mnist'"):
        load_dataset("mnist", path="somewhere")


def test_errors_are_value_errors():
    assert issubclass(DataError, ValueError)
    assert {"digits", "mnist", "cifar10", "celeb_a", "dsprites", "shapes3d"} < set(DATASETS)
