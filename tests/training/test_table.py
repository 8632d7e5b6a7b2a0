"""The tables of a run: every number beside its null."""

import json

import pytest

from avae_jax.training.table import format_summary, print_summary


def test_summary_pairs_values_with_their_nulls(capsys):
    summary = {
        "images": 1437,
        "reconstruction": {"mse": 0.0103, "mse_null": 0.0675, "psnr": 19.9},
        "entropy": {"entropy": 8.7, "null": 8.81, "cap": 12.06, "tail_share": 0.17},
        "std": [0.95, 0.81],
        "kl": (1.92, None),
        "run": "runs/digits-with-a-long-name",
        "score": float("inf"),
    }
    print_summary(summary)
    text = capsys.readouterr().out
    header, _, *lines, note = text.splitlines()
    assert header.split() == ["quantity", "value", "null"]
    assert note == "null: what as many draws of the prior, or a constant decoder, would give"
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows == {
        "images": ["1,437"],
        "reconstruction": [],
        "mse": ["0.0103", "0.0675"],
        "psnr": ["19.9"],
        "entropy": ["8.70", "8.81"],
        "cap": ["12.1"],
        "tail_share": ["0.170"],
        "std": ["0.950", "0.810"],
        "kl": ["1.92", "-"],
        "run": ["runs/digits-with-a-long-name"],
        "score": ["inf"],
    }
    assert text == format_summary(summary) + "\n"
    assert format_summary(json.loads(json.dumps(summary))) == format_summary(summary)


def test_summary_without_nulls_has_no_column_for_them():
    assert format_summary({"seconds": 3.0}) == "quantity  value\n---------------\nseconds    3.00"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (1e-6, "1.00e-06"), (999.7, "1,000"), (123.4, "123"), (-0.5, "-0.500")],
)
def test_numbers_have_three_digits(value, text):
    assert format_summary({"x": value}).split()[-1] == text
