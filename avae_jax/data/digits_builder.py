"""The tfds builder of scikit-learn's digits; imports tfds, so it is imported on first use."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_MAX_STORED = 16


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 8x8 digits of scikit-learn: the test part of UCI's Optical Recognition set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Grey values 0..16 scaled to 0..255."}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="8x8 images of handwritten digits, as shipped with scikit-learn.",
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    # Tensor, not Image: encoding an Image takes TensorFlow.
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            # Keeps scikit-learn's order, so that row i is digit i.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        pixels = np.rint(digits.images * (255 / _MAX_STORED)).astype(np.uint8)
        for row, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
            yield row, {"image": image[..., None], "label": int(label)}


def prepare_digits(data_dir: Path) -> Path:
    """Prepare digits in `data_dir`; the version folder appears at once and complete.

    Args:
      data_dir: tfds data folder.

    Returns:
      The version folder.

    Raises:
      OSError: if the folder cannot be written.
    """
    target = data_dir / "digits" / str(Digits.VERSION)
    if (target / "dataset_info.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".partial-digits-", dir=data_dir))
    try:
        builder = Digits(data_dir=os.fspath(scratch), file_format="array_record")
        builder.download_and_prepare()
        try:
            os.rename(scratch / "digits" / str(Digits.VERSION), target)
        except OSError:
            # Another process was faster; its copy is the same.
            if not (target / "dataset_info.json").exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
