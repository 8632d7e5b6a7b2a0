"""Downloading and preparing tfds datasets, with failures told in one line and in seconds."""

import importlib.util
import json
import os
import tempfile
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from avae_jax.data.errors import DataError
from avae_jax.data.tfds_dataset import TfdsDataset, find_prepared, quiet

_PACKAGES = {"dsprites": ("tensorflow", "h5py"), "shapes3d": ("tensorflow", "h5py")}
_TIMEOUT_S = 5.0


def prepare_tfds(dataset: TfdsDataset, data_dir: Path) -> Path:
    """Download and prepare a dataset into `data_dir` as array_record.

    Args:
      dataset: the dataset.
      data_dir: tfds data folder, made if missing.

    Returns:
      The version folder; if it was there before, nothing is done.

    Raises:
      DataError: if a package is missing, a host cannot be reached, a download is refused or
        altered, or the folder cannot be written.
    """
    prepared = find_prepared(dataset.name, data_dir)
    if prepared is not None:
        return prepared.path
    for package in _PACKAGES.get(dataset.name, ("tensorflow",)):
        if importlib.util.find_spec(package) is None:
            raise DataError(
                f"preparing '{dataset.name}' takes {package} (reading it does not): "
                "pip install 'avae_jax[prepare]'"
            )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise DataError(
            f"{data_dir} cannot be written ({error}): choose another data_dir"
        ) from error
    # Read by TensorFlow when it is imported; the user's own choice comes first.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

        builder = tfds.builder(dataset.name, data_dir=data_dir, file_format="array_record")
        urls = set(type(builder).url_infos or {}) - downloaded_urls(data_dir / "downloads")
        check_reachable(urls, name=dataset.name, data_dir=data_dir)
        try:
            builder.download_and_prepare()
        except (
            OSError,
            ValueError,
            RuntimeError,
            ImportError,
            NonMatchingChecksumError,
            tfds.download.DownloadError,
        ) as error:
            raise DataError(_explain(dataset.name, data_dir, error)) from error
    return Path(builder.data_dir)


def downloaded_urls(download_dir: Path) -> set[str]:
    """Return the addresses whose files tfds has kept from an earlier attempt.

    Args:
      download_dir: tfds's download folder; may be missing.
    """
    urls = set()
    for info_file in download_dir.glob("*.INFO"):
        if info_file.with_suffix("").exists():
            urls.update(json.loads(info_file.read_text()).get("urls", ()))
    return urls


def check_reachable(urls: Iterable[str], *, name: str, data_dir: Path) -> None:
    """Ask one address of each host for its headers, so that no network is told in seconds.

    tfds itself tries each address eleven times, without a time limit.

    Args:
      urls: addresses to be downloaded.
      name: dataset, for the message.
      data_dir: tfds data folder, for the message.

    Raises:
      DataError: if a host does not answer within 5 s.
    """
    import requests

    hosts = {urllib.parse.urlsplit(url).netloc: url for url in sorted(urls)}
    for host, url in hosts.items():
        try:
            # Whatever the status, the host answered; tfds judges the download itself.
            requests.head(url, timeout=_TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise DataError(
                f"dataset '{name}' cannot be downloaded: {host} does not answer "
                f"({type(error).__name__}); prepare it on a machine with network and copy "
                f"{data_dir / name} here"
            ) from error


def _explain(name: str, data_dir: Path, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    message = f"preparing '{name}' in {data_dir} failed: {type(error).__name__}: {reason}"
    if name == "celeb_a":
        message += " (its host limits downloads: unpack img_align_celeba.zip, give data_path)"
    return message
