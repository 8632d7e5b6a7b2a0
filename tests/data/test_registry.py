"""Datasets by name: what every entry of the registry says and needs."""

import numpy as np
import pytest

from avae_jax.data import DATASETS, PREPARED, DataError, load_dataset, prepare_dataset, read_images
from avae_jax.data.registry import LOADERS
from avae_jax.registries import takes

PATHS = [name for name, loader in LOADERS.items() if takes(loader, "path")]
RENDERED = [name for name in LOADERS if name not in PATHS]


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


@pytest.mark.parametrize("name", DATASETS)
def test_a_misspelt_dataset_is_recognised(name):
    for misspelt in (name[1:], name.upper() + "_"):
        with pytest.raises(DataError, match=f"unknown dataset '{misspelt}'; did you mean '{name}'"):
            load_dataset(misspelt)


def test_only_datasets_that_are_prepared_are_suggested_for_preparing():
    with pytest.raises(DataError) as caught:
        prepare_dataset("foldr")
    assert str(caught.value).endswith(f"known: {', '.join(PREPARED)}")


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in PREPARED])
def test_other_datasets_need_no_preparation(name):
    with pytest.raises(DataError, match=f"dataset '{name}' needs no preparation"):
        prepare_dataset(name)


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_datasets_need_nothing(name):
    assert load_dataset(name, validation_size=5, test_size=5).name == name
    with pytest.raises(DataError, match=f"did you mean '{name}'"):
        load_dataset(name.replace("_", "-"))


# CelebA is read from its unpacked archive too.
@pytest.mark.parametrize("name", [name for name in (*PREPARED, *RENDERED) if name != "celeb_a"])
def test_path_for_a_dataset_without_one(name):
    with pytest.raises(DataError, match=f"data_path=somewhere does not belong to dataset '{name}'"):
        load_dataset(name, path="somewhere")


@pytest.mark.parametrize("name", PATHS)
def test_missing_path_is_said_to_be_missing(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(folder|file) .*/nowhere does not exist"):
        load_dataset(name, path=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"/nowhere does not exist: give a folder or"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"'{name}' needs data_path \(path in Python\)"):
        load_dataset(name)


@pytest.mark.parametrize("name", [*PATHS, "celeb_a"])
def test_data_dir_beside_a_path_is_refused(name, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 4), np.uint8))
    with pytest.raises(DataError, match=r"data_dir=.* does not go with data_path"):
        load_dataset(name, path=tmp_path / "x.npy", data_dir=tmp_path)


# Digits are prepared where they are missing.
@pytest.mark.parametrize("name", [name for name in PREPARED if name != "digits"])
def test_missing_data_dir_is_said_to_be_missing(name, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"data_dir=.*/nowhere does not exist: give .*{name}"
    ):
        load_dataset(name, data_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"'{name}' is not prepared in {tmp_path}"):
        load_dataset(name, data_dir=tmp_path)
