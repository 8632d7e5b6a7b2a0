"""A model that does not reconstruct, or only what it was trained on, is named."""

import pytest

from avae_jax.evaluation.fit import judge_fit


def row(step, train, validation, kl=(1.0, 1.0)):
    return {
        "step": step, "epoch": step // 10, "train/reconstruction": train,
        "validation/reconstruction": validation, "train/kl": kl[0], "validation/kl": kl[1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mse", "rows", "names"),
    [
        (0.05, [row(10, 10.0, 11.0)], []),
        (0.05, [], []),
        (0.0828, [row(10, 10.0, 11.0)], ["reconstruction"]),
        (0.05, [row(10, 10.8, 35.9)], ["overfitting"]),
        # That of the checkpoint that is judged, not of the last one.
        (0.05, [row(10, 10.0, 11.0), row(20, 1.0, 35.9)], []),
        (0.05, [row(10, 10.0, 11.0, (-2.4, 0.5))], ["overfitting"]),
        (0.05, [{"step": 10, "epoch": 1, "train/reconstruction": 1.0}], []),
    ],
)
def test_what_is_named(mse, rows, names):
    found = judge_fit({"mse": mse, "mse_null": 0.0742}, rows, step=10)
    assert [finding.name for finding in found] == names


def test_the_numbers_are_said():
    useless, overfit = judge_fit(
        {"mse": 0.0828, "mse_null": 0.0742}, [row(10, 10.8, 35.9, (-2.4, 0.5))], step=10
    )
    assert useless.level == "fault"
    assert "0.0828, is no lower than that of the mean image, 0.0742" in useless.text
    assert overfit.level == "notice"
    assert "error per image 10.8 in training and 35.9 in validation, KL -2.40 in" in overfit.text
