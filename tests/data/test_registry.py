import numpy as np
import pytest

from avae_jax.data import DATASETS, DataError, load_dataset, prepare_dataset, read_images


@pytest.mark.parametrize("function", [load_dataset, prepare_dataset])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst", "did you mean 'mnist'"),
        ("celeba", "did you mean 'celeb_a'"),
        ("CIFAR", "did you mean 'cifar10'"),
        ("foo", "known: digits"),
    ],
)
def test_unknown_name(function, name, message):
    with pytest.raises(DataError, match=message):
        function(name)


def test_only_datasets_that_are_prepared_are_suggested_for_preparing():
    with pytest.raises(DataError, match="did you mean 'folder'"):
        load_dataset("foldr")
    with pytest.raises(DataError) as caught:
        prepare_dataset("foldr")
    assert str(caught.value).endswith("known: digits, mnist, cifar10, celeb_a, dsprites, shapes3d")


@pytest.mark.parametrize("name", ["sprites_like", "shapes3d_like"])
def test_rendered_datasets_need_nothing(name):
    assert load_dataset(name, validation_size=5, test_size=5).name == name
    with pytest.raises(DataError, match=f"dataset '{name}' needs no preparation"):
        prepare_dataset(name)
    with pytest.raises(DataError, match=r"did you mean '.*_like'"):
        load_dataset(name.replace("_", "-"))


def test_path_for_a_dataset_without_one():
    with pytest.raises(DataError, match="data_path=somewhere does not belong to dataset 'mnist'"):
        load_dataset("mnist", path="somewhere")


@pytest.mark.parametrize("name", ["folder", "array"])
def test_missing_path_is_said_to_be_missing(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(folder|file) .*/nowhere does not exist"):
        load_dataset(name, path=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"/nowhere does not exist: give a folder or"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"'{name}' needs data_path \(path in Python\)"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["folder", "array", "celeb_a"])
def test_data_dir_beside_a_path_is_refused(name, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 4), np.uint8))
    with pytest.raises(DataError, match=r"data_dir=.* does not go with data_path"):
        load_dataset(name, path=tmp_path / "x.npy", data_dir=tmp_path)


def test_missing_data_dir_is_said_to_be_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"data_dir=.*/nowhere does not exist: give .*mnist"
    ):
        load_dataset("mnist", data_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"'mnist' is not prepared in {tmp_path}"):
        load_dataset("mnist", data_dir=tmp_path)


def test_errors_are_value_errors():
    assert issubclass(DataError, ValueError)
    assert {"digits", "mnist", "cifar10", "celeb_a", "dsprites", "shapes3d"} < set(DATASETS)
