import importlib.util
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from avae_jax.data import DataError, prepare, prepare_dataset


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return port


@pytest.fixture
def with_tensorflow(monkeypatch):
    """Pretends that every package is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


def test_missing_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"takes tensorflow .*pip install 'avae_jax\[prepare\]'"):
        prepare_dataset("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unreachable_host_fails_in_seconds(closed_port, tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"127\.0\.0\.1:{closed_port} does not answer") as caught:
        prepare.check_reachable(
            [f"http://127.0.0.1:{closed_port}/a.gz"], name="mnist", data_dir=tmp_path
        )
    assert time.monotonic() - start < 10
    assert str(tmp_path / "mnist") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_host_that_answers_is_asked_once(tmp_path):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments):
            """Keeps the server's log from the terminal."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        prepare.check_reachable([f"{base}/a", f"{base}/b"], name="mnist", data_dir=tmp_path)
        server.shutdown()
        thread.join()
    assert len(asked) == 1


def test_no_network_stops_the_whole_preparation(
    with_tensorflow, monkeypatch, closed_port, tmp_path
):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder:
        url_infos = {f"http://127.0.0.1:{closed_port}/a.gz": None}

        def download_and_prepare(self):
            raise AssertionError("must not be reached")

    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: Builder())
    with pytest.raises(DataError, match="does not answer"):
        prepare_dataset("mnist", tmp_path)


def test_failed_preparation_is_one_line(with_tensorflow, monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Builder:
        url_infos = {}

        def download_and_prepare(self):
            raise tfds.download.DownloadError("\nFailed to get url x.\nfifty more lines")

    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: Builder())
    with pytest.raises(DataError) as caught:
        prepare_dataset("celeb_a", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "DownloadError: Failed to get url x." in message
    assert "img_align_celeba.zip" in message


def test_files_of_an_earlier_download_are_not_asked_for(tmp_path):
    assert prepare.downloaded_urls(tmp_path / "none") == set()
    (tmp_path / "a.gz").write_bytes(b"x")
    (tmp_path / "a.gz.INFO").write_text(json.dumps({"urls": ["http://host/a.gz"]}))
    (tmp_path / "b.gz.INFO").write_text(json.dumps({"urls": ["http://host/b.gz"]}))
    assert prepare.downloaded_urls(tmp_path) == {"http://host/a.gz"}


def test_unwritable_folder(with_tensorflow, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        prepare_dataset("mnist", tmp_path / "file" / "tfds")


def test_digits_need_no_tensorflow(tmp_path):
    path = prepare_dataset("digits", tmp_path)
    assert path == tmp_path / "digits" / "1.0.0"
    assert prepare_dataset("digits", tmp_path) == path
    assert "tensorflow" not in sys.modules


def test_paths_need_no_preparation():
    with pytest.raises(DataError, match="needs no preparation"):
        prepare_dataset("folder")
