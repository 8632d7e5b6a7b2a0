"""A figure as a file: whole or not at all, and nothing of the user's matplotlib touched."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from avae_jax import figures

CODES = np.random.default_rng(0).standard_normal((40, 2))


@pytest.fixture(scope="module")
def figure():
    return figures.make_latent_scatter(CODES)


def test_saved_file_is_a_picture_and_replaces_the_old_one(figure, tmp_path):
    path = tmp_path / "figures" / "scatter.png"
    assert figures.save(figure, path) == path
    path.write_bytes(b"old")
    figures.save(figure, str(path))
    assert path.read_bytes() == figures.to_png(figure)
    with Image.open(path) as picture:
        picture.load()
        width, height = figure.get_size_inches() * figure.dpi
        assert picture.size == (int(width), int(height))
        assert np.asarray(picture.convert("L")).std() > 5
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_failed_save_keeps_the_old_file(figure, tmp_path, monkeypatch):
    path = tmp_path / "scatter.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("avae_jax.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(figure, tmp_path):
    with pytest.raises(ValueError, match="must end in .png, got 'scatter.pdf'"):
        figures.save(figure, tmp_path / "deep" / "scatter.pdf")
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_the_user_s_matplotlib_alone(tmp_path):
    code = (
        "import sys; from avae_jax import figures; "
        "assert 'matplotlib' not in sys.modules; "
        "import matplotlib; matplotlib.rcParams['font.size'] = 20.5; "
        "import numpy as np; z = np.random.default_rng(0).standard_normal((20, 2)); "
        f"figures.save(figures.make_latent_scatter(z), {str(tmp_path / 'a.png')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert matplotlib.rcParams['font.size'] == 20.5"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_house_style_is_not_the_user_s(monkeypatch):
    expected = figures.to_png(figures.make_latent_scatter(CODES))
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20.5)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "black")
    assert figures.to_png(figures.make_latent_scatter(CODES)) == expected
