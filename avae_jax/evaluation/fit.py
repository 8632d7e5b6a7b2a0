"""Whether a model reconstructs at all, and new images as well as those it was trained on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from avae_jax.evaluation.verdict import Finding
from avae_jax.terms import SPLITS
from avae_jax.text import number

OVERFIT, OVERFIT_NATS = 1.5, 1.0
"""Ratio of validation to training error, and gap between their KLs, from which they are named."""

USELESS = "The model reconstructs no better than the mean image."


def judge_fit(
    reconstruction: Mapping[str, float], rows: Sequence[Mapping[str, Any]], *, step: int
) -> list[Finding]:
    """Compare the reconstruction error with that of a constant, and with that in training.

    Args:
      reconstruction: section of a summary, with "mse" and "mse_null".
      rows: of `metrics.jsonl`.
      step: of the checkpoint that is judged.

    Returns:
      A fault where the mean image does as well, a notice where the validation error is
      `OVERFIT` times that in training or more, or the KL `OVERFIT_NATS` more.
    """
    found = []
    mse, constant = reconstruction["mse"], reconstruction["mse_null"]
    if mse >= constant:
        text = (
            f"reconstruction: the error per pixel, {number(mse)}, is no lower than that of the "
            f"mean image, {number(constant)}: the decoder makes nothing of the codes"
        )
        found.append(Finding("reconstruction", "fault", text))
    row = next((row for row in rows if row["step"] == step), {})
    apart = []
    for name, what, is_apart in (
        ("reconstruction", "error per image", lambda train, other: other >= OVERFIT * train > 0),
        ("kl", "KL", lambda train, other: other >= train + OVERFIT_NATS),
    ):
        train, other = (row.get(f"{split}/{name}", math.nan) for split in SPLITS)
        if is_apart(train, other):
            apart.append(f"{what} {number(train)} in training and {number(other)} in validation")
    if apart:
        text = (
            f"overfitting: {', '.join(apart)} (epoch {row['epoch']}); more images or a smaller "
            "width bring them together"
        )
        found.append(Finding("overfitting", "notice", text))
    return found
