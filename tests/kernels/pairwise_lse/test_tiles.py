"""Tile sizes by a CPU's caches."""

import jax
import pytest

from avae_jax.kernels.pairwise_lse import tiles

MIB = 2**20


@pytest.fixture
def caches(monkeypatch):
    """Returns what makes this a CPU with caches of given sizes."""
    if jax.default_backend() != "cpu":
        pytest.skip("other devices have a table")

    def set_sizes(level_2, level_3):
        monkeypatch.setattr(tiles, "cache_bytes", lambda: (level_2, level_3))

    return set_sizes


@pytest.mark.parametrize(
    ("level_2", "level_3", "stored", "reread"),
    [
        (4 * MIB, 480 * MIB, 8 * MIB, 2 * MIB),
        (1 * MIB, 16 * MIB, 4 * MIB, 1 * MIB),
        (64 * MIB, 64 * MIB, 8 * MIB, 8 * MIB),
        (MIB // 2, 4 * MIB, 2 * MIB, 1 * MIB),
    ],
)
def test_tiles_fit_the_caches(caches, level_2, level_3, stored, reread):
    caches(level_2, level_3)
    for d in (1, 16, 64, 1024):
        for size, is_reread in ((stored, False), (reread, True)):
            queries, centers = tiles.tile_sizes(10**6, 10**6, d, reread=is_reread)
            assert 4 * queries * centers == size


def test_few_queries_have_wider_tiles_that_fit_too(caches):
    caches(4 * MIB, 480 * MIB)
    assert tiles.tile_sizes(128, 10**6, 16) == (128, 16_384)
    assert tiles.tile_sizes(128, 10**6, 64) == (128, 8192)
    assert tiles.tile_sizes(128, 10**6, 1024) == (128, 2048)
    assert tiles.tile_sizes(512, 10**6, 2) == (512, 4096)
    assert tiles.tile_sizes(3, 10, 2) == (3, 10)


def test_caches_are_read_as_linux_tells_them(monkeypatch, tmp_path):
    monkeypatch.setattr(tiles, "CACHES", tmp_path)
    assert tiles._cache_size(2, 123) == 123
    for name, level, size in (("index0", 1, "48K"), ("index2", 2, "2048K"), ("index3", 3, "?")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "level").write_text(f"{level}\n")
        (tmp_path / name / "size").write_text(f"{size}\n")
    assert tiles._cache_size(2, 123) == 2 * MIB
    assert tiles._cache_size(3, 123) == 123


def test_a_table_of_the_device_comes_first(monkeypatch):
    rule = {"max_dims": None, "queries": 32, "centers": 64, "widest": 128}
    table = {jax.devices()[0].device_kind: [rule]}
    monkeypatch.setattr(tiles, "load_table", lambda: table)
    assert tiles.tile_sizes(1000, 1000, 5) == (32, 64)
    assert tiles.tile_sizes(8, 1000, 5) == (8, 128)
