"""Figures: arrays in, a `matplotlib.figure.Figure` out.

Nothing is measured here and nothing is decoded: a caller hands over arrays and the numbers that a
title shall give. A figure is written by `save(figure, path)` or turned into bytes by
`to_png(figure)`.

```
style.py     colors, fonts, titles      <-- every other file
png.py       save, to_png
images.py    reconstructions, samples, galleries, the decoded plane, walks (strips, GIF)
  |-- tiles.py    many images as one picture, pixel for pixel
  `-- plain.py    the same for data that are no images: points, profiles, strips
latent.py    scatter, planes, radius, covariance, spectrum
curves.py    training curves; precision against recall
comparison.py  numbers of several methods
```

matplotlib is imported when the first figure is made, its pyplot state and the user's own settings
are left alone, and no display is needed.

Images are `[n, height, width, channels]`, floats in `value_range` or uint8 in 0..255; with channels
neither 1 nor 3 their mean is drawn in gray. Plain data is `[n, features]`. Codes are
`[n, latent_dim]`; rows that are not finite are left out and counted.
"""

from avae_jax.figures.comparison import Panel as Panel
from avae_jax.figures.comparison import make_comparison as make_comparison
from avae_jax.figures.curves import make_prd as make_prd
from avae_jax.figures.curves import make_training_curves as make_training_curves
from avae_jax.figures.images import make_gallery as make_gallery
from avae_jax.figures.images import make_image_grid as make_image_grid
from avae_jax.figures.images import make_latent_grid as make_latent_grid
from avae_jax.figures.images import make_reconstructions as make_reconstructions
from avae_jax.figures.images import make_samples as make_samples
from avae_jax.figures.images import make_strips as make_strips
from avae_jax.figures.images import spread_rows as spread_rows
from avae_jax.figures.images import to_gif as to_gif
from avae_jax.figures.latent import make_covariance as make_covariance
from avae_jax.figures.latent import make_latent_scatter as make_latent_scatter
from avae_jax.figures.latent import make_planes as make_planes
from avae_jax.figures.latent import make_radius_histogram as make_radius_histogram
from avae_jax.figures.latent import make_spectrum as make_spectrum
from avae_jax.figures.png import save as save
from avae_jax.figures.png import to_png as to_png
