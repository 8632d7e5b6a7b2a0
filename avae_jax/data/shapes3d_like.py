"""Shapes3D-like: 480,000 RGB 64x64 images of an object in a room, ray-cast on demand.

A stand-in for 3D Shapes where that cannot be downloaded, with the same factors and grid. Call
numbers measured on it "shapes-like", never 3D Shapes.
"""

import colorsys
import functools

import numpy as np

from avae_jax.data.factors import FACTORS, GridImages
from avae_jax.data.image_data import ImageData
from avae_jax.data.splits import draw_splits

IMAGE_SHAPE = (64, 64, 3)
VALIDATION_SIZE = 20_000
TEST_SIZE = 20_000

_GRID = FACTORS["shapes3d_like"]
_NUM_HUES, _NUM_SCALES, _NUM_SHAPES, _NUM_ANGLES = _GRID.sizes[2:]
_SIDE = IMAGE_SHAPE[0]

# The room is a square with the object in its middle, without a ceiling; lengths in object sizes.
_HALF_ROOM = 4.0
_DISTANCE, _HEIGHT, _LOOK_AT, _TAN_HALF_VIEW = 3.8, 2.4, 0.75, 0.62
_LIGHT = np.array([0.50, -0.62, 0.95]) / np.linalg.norm([0.50, -0.62, 0.95])
_AMBIENT, _SHADOW, _SHINE = 0.42, 0.6, 0.2


def load_shapes3d_like(
    *,
    seed: int = 0,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
) -> ImageData:
    """Load the shapes3d-like data set.

    Factors: floor_hue 10, wall_hue 10, object_hue 10, scale 8 (0.75 to 1.25), shape 4 (cube,
    cylinder, sphere, capsule), orientation 15 (-30 to 30 degrees), the last fastest. Hues are
    `k / 10`. The camera goes around the object, so orientation shows in the corners of the room
    and in the light even where the object itself is round.

    Args:
      seed: seed of the validation draw.
      validation_size: count or share; None is 20,000.
      test_size: count or share; None is 20,000.

    Returns:
      `ImageData` with lazy uint8 images `[480000, 64, 64, 3]`; labels are the shape.

    Raises:
      DataError: if the sizes do not fit.

    Numerics:
      An image is linear in its three colours, so the 480 geometries are ray-cast once, in a few
      seconds when the first image is asked for, and kept as 31 MB of whole-numbered weights.
      Sums of such numbers are exact: equal rows give equal bytes everywhere.
    """
    splits = draw_splits(
        {"train": _GRID.num_points},
        seed=seed,
        validation_size=VALIDATION_SIZE if validation_size is None else validation_size,
        test_size=TEST_SIZE if test_size is None else test_size,
    )
    images = GridImages(_GRID, image_shape=IMAGE_SHAPE, render=render_shapes3d)
    shape = np.repeat(np.arange(_NUM_SHAPES), _NUM_ANGLES)
    labels = np.tile(shape, _GRID.num_points // len(shape))
    return ImageData("shapes3d_like", images, labels, splits, _NUM_SHAPES)


def render_shapes3d(factors: np.ndarray) -> np.ndarray:
    """Colour ray-cast scenes.

    Args:
      factors: `[b, 6]` integers: floor_hue, wall_hue, object_hue, scale, shape, orientation.

    Returns:
      uint8 `[b, 64, 64, 3]`.
    """
    factors = np.asarray(factors)
    scale, shape, orientation = np.moveaxis(factors[:, 3:], -1, 0)
    colours = np.full((len(factors), 4, 3), 255.0, np.float32)
    colours[:, :3] = _hues()[factors[:, :3]]
    weights = _cached_weights()[scale, shape, orientation]
    pixels = weights @ colours
    pixels *= np.float32(1 / 255)
    pixels += np.float32(0.5)
    return pixels.astype(np.uint8).reshape(-1, *IMAGE_SHAPE)


def _hues() -> np.ndarray:
    """Return the ten colours `[10, 3]`, 0 to 255."""
    colours = [colorsys.hsv_to_rgb(k / _NUM_HUES, 1.0, 1.0) for k in range(_NUM_HUES)]
    return np.round(255 * np.array(colours)).astype(np.float32)


@functools.cache
def _cached_weights() -> np.ndarray:
    return weight_maps().reshape(_NUM_SCALES, _NUM_SHAPES, _NUM_ANGLES, -1, 4).astype(np.float32)


def weight_maps() -> np.ndarray:
    """Ray-cast every geometry, with 2 x 2 rays to a pixel.

    Returns:
      uint8 `[8, 4, 15, 64, 64, 4]`: how much of the floor's, the wall's and the object's colour
      and of white light reaches each pixel, in 255ths that sum to at most 255.
    """
    angles = np.deg2rad(np.linspace(-30.0, 30.0, _NUM_ANGLES))
    scales = np.linspace(0.75, 1.25, _NUM_SCALES)
    maps = np.empty((_NUM_SCALES, _NUM_SHAPES, _NUM_ANGLES, _SIDE, _SIDE, 4), np.uint8)
    for column, angle in enumerate(angles):
        eye, rays = _camera(angle)
        room, floor_points = _cast_room(eye, rays)
        for row, scale in enumerate(scales):
            for shape, cast in enumerate((_cast_cube, _cast_cylinder, _cast_sphere, _cast_capsule)):
                weights = room.copy()
                lit = np.isfinite(cast(floor_points / scale, _LIGHT[:, None])[0])
                weights[0, room[0] > 0] *= np.where(lit, _SHADOW, 1.0)
                _add_object(weights, cast, eye / scale, rays)
                pixels = weights.reshape(4, _SIDE, 2, _SIDE, 2).mean(axis=(2, 4))
                maps[row, shape, column] = np.moveaxis(255 * pixels, 0, -1).astype(np.uint8)
    return maps


def _camera(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the eye `[3, 1]` and unit rays `[3, (2 * 64)**2]`, row by row from the top left."""
    sin, cos = np.sin(angle), np.cos(angle)
    eye = np.array([_DISTANCE * sin, -_DISTANCE * cos, _HEIGHT])
    ahead = np.array([0.0, 0.0, _LOOK_AT]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.array([cos, sin, 0.0])
    up = np.cross(right, ahead)
    step = (np.arange(2 * _SIDE) + 0.5) / _SIDE - 1.0
    across, down = _TAN_HALF_VIEW * step[None, :, None], _TAN_HALF_VIEW * step[:, None, None]
    rays = (ahead + across * right - down * up).reshape(-1, 3).T
    return eye[:, None], rays / _norm(rays)


def _cast_room(eye: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of an empty room `[4, rays]` and the points seen on the floor `[3, k]`."""
    with np.errstate(divide="ignore"):
        to_floor = np.where(rays[2] < 0, -eye[2] / rays[2], np.inf)
        to_walls = (np.sign(rays[:2]) * _HALF_ROOM - eye[:2]) / rays[:2]
    weights = np.zeros((4, rays.shape[1]))
    floor = to_floor < to_walls.min(axis=0)
    weights[0, floor] = _shade(_LIGHT[2])
    axis = to_walls.argmin(axis=0)
    towards = -np.sign(np.take_along_axis(rays, axis[None], axis=0)[0]) * _LIGHT[axis]
    weights[1] = np.where(floor, 0.0, _shade(towards))
    return weights, eye + rays[:, floor] * to_floor[floor]


def _add_object(weights: np.ndarray, cast, eye: np.ndarray, rays: np.ndarray) -> None:
    distance, normal = cast(eye, rays)
    hit = np.isfinite(distance)
    normal, rays = normal[:, hit], rays[:, hit]
    facing = _LIGHT @ normal
    mirrored = np.sum(rays * (_LIGHT[:, None] - 2.0 * facing * normal), axis=0)
    shine = np.where(facing > 0, np.maximum(mirrored, 0.0), 0.0)
    # Sixteenth power by squaring: exact steps, the same everywhere.
    for _ in range(4):
        shine = shine * shine
    weights[:, hit] = 0.0
    weights[2, hit] = (1.0 - _SHINE) * _shade(facing)
    weights[3, hit] = _SHINE * shine


def _shade(facing):
    """Return the brightness of a surface from the cosine between its normal and the light."""
    return _AMBIENT + (1.0 - _AMBIENT) * np.maximum(facing, 0.0)


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(vectors * vectors, axis=0))


# Each object stands on the floor at the origin, at scale 1. `cast` returns the distance along unit
# rays `[3, k]` from `eye` `[3, 1 or k]`, infinite where it is missed, and the unit normal there.


def _cast_cube(eye, rays):
    half = 0.68
    center = np.array([0.0, 0.0, half])[:, None]
    with np.errstate(divide="ignore"):
        to_middle, reach = (center - eye) / rays, half / np.abs(rays)
    near, far = to_middle - reach, to_middle + reach
    entry = near.max(axis=0)
    distance = _hit(entry, far.min(axis=0))
    normal = np.where(near == entry, -np.sign(rays), 0.0)
    return distance, normal


def _cast_sphere(eye, rays, *, radius=0.85, height=0.85):
    center = np.array([0.0, 0.0, height])[:, None]
    entry, leave = _quadratic(eye - center, rays, radius)
    distance = _hit(entry, leave)
    return distance, _unit_normal(eye, rays, distance, lambda point: point - center)


def _cast_cylinder(eye, rays, *, radius=0.68, low=0.0, high=1.5):
    side_in, side_out = _quadratic(eye[:2], rays[:2], radius)
    with np.errstate(divide="ignore"):
        ends = np.sort([(low - eye[2]) / rays[2], (high - eye[2]) / rays[2]], axis=0)
    entry = np.maximum(side_in, ends[0])
    distance = _hit(entry, np.minimum(side_out, ends[1]))
    radial = _unit_normal(eye, rays, distance, lambda p: p * np.array([1.0, 1.0, 0.0])[:, None])
    vertical = np.zeros_like(radial)
    vertical[2] = -np.sign(rays[2])
    return distance, np.where(side_in >= ends[0], radial, vertical)


def _cast_capsule(eye, rays):
    radius, high = 0.52, 1.3
    parts = [
        _cast_cylinder(eye, rays, radius=radius, low=radius, high=high)[0],
        _cast_sphere(eye, rays, radius=radius, height=radius)[0],
        _cast_sphere(eye, rays, radius=radius, height=high)[0],
    ]
    distance = np.min(parts, axis=0)

    def from_axis(point):
        nearest = np.zeros_like(point)
        nearest[2] = np.clip(point[2], radius, high)
        return point - nearest

    return distance, _unit_normal(eye, rays, distance, from_axis)


def _quadratic(start, rays, radius):
    """Return where rays enter and leave a circle or sphere around the origin; NaN if they miss."""
    a, b = np.sum(rays * rays, axis=0), np.sum(start * rays, axis=0)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(b * b - a * (np.sum(start * start, axis=0) - radius * radius))
    return (-b - root) / a, (-b + root) / a


def _hit(entry, leave):
    # A comparison with NaN is false: a miss. The margin keeps the floor out of an object's bottom.
    return np.where((leave > entry) & (leave > 1e-9), np.where(entry > 0, entry, 0.0), np.inf)


def _unit_normal(eye, rays, distance, outwards):
    point = eye + rays * np.where(np.isfinite(distance), distance, 1.0)
    normal = outwards(point)
    return normal / np.maximum(_norm(normal), 1e-12)
