import numpy as np
import pytest
from sklearn.datasets import load_digits

from avae_jax.features import load_classifier, train_classifier

NUM_EPOCHS = 20


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images / 16.0).astype(np.float32)[order][..., None]
    labels = data.target[order]
    return {
        "train": (images[:1300], labels[:1300]),
        "validation": (images[1300:1500], labels[1300:1500]),
        "test": (images[1500:], labels[1500:]),
    }


@pytest.fixture(scope="module")
def trained(digits):
    reports = []
    classifier = train_classifier(
        *digits["train"],
        num_classes=10,
        dataset="digits",
        validation_images=digits["validation"][0],
        validation_labels=digits["validation"][1],
        num_epochs=NUM_EPOCHS,
        batch_size=64,
        progress=lambda epoch, report: reports.append((epoch, report)),
    )
    return classifier.with_test_accuracy(*digits["test"]), reports


def train_small(digits, **options):
    images, labels = digits["train"]
    # The batch size of the fixture: its step is not compiled again.
    options = {"num_classes": 10, "dataset": "digits", "num_epochs": 1, "batch_size": 64, **options}
    return train_classifier(images[:200], labels[:200], **options)


def test_learns_the_digits(trained, digits):
    classifier, reports = trained
    assert classifier.name == "lenet-digits"
    assert classifier.image_shape == (8, 8, 1)
    assert classifier.test_accuracy >= 0.95
    assert classifier.test_accuracy == classifier.accuracy(*digits["test"])
    assert [epoch for epoch, _ in reports] == list(range(1, NUM_EPOCHS + 1))
    assert reports[-1][1]["loss"] < 0.2 * reports[0][1]["loss"]


def test_keeps_the_epoch_that_validates_best(trained, digits):
    classifier, reports = trained
    best = max(report["validation_accuracy"] for _, report in reports)
    assert classifier.validation_accuracy == best
    assert classifier.accuracy(*digits["validation"]) == best


def test_a_worse_later_epoch_is_not_kept(digits):
    images, labels = digits["train"]
    # Validation labels that only an untrained net can match by chance: accuracy falls to 0.
    wrong = (labels[:200] + 1) % 10
    reports = []
    classifier = train_small(
        digits,
        num_epochs=12,
        learning_rate=3e-3,
        validation_images=images[:200],
        validation_labels=wrong,
        progress=lambda epoch, report: reports.append(report["validation_accuracy"]),
    )
    assert reports[-1] < max(reports)
    assert classifier.accuracy(images[:200], wrong) == max(reports)


def test_features_give_the_logits(trained, digits):
    classifier, _ = trained
    # More than one batch, and a last one that is padded.
    images = np.concatenate([digits["test"][0]] * 2)[:501]
    features = classifier.features(images)
    assert features.shape == (501, 84)
    assert features.dtype == np.float32
    assert features.min() >= 0.0
    kernel, bias = classifier.params["output/kernel"], classifier.params["output/bias"]
    logits = classifier.logits(images)
    expected = features.astype(np.float64) @ kernel + bias
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_array_equal(classifier.predict(images), expected.argmax(axis=1))
    alone = np.concatenate([classifier.features(images[i : i + 1]) for i in (0, 250, 500)])
    np.testing.assert_allclose(alone, features[[0, 250, 500]], rtol=1e-5, atol=1e-5)


def test_features_equal_numpy(trained, digits):
    classifier, _ = trained
    params = {key: value.astype(np.float64) for key, value in classifier.params.items()}
    images = digits["test"][0][:3]

    def layer(x, i):
        kernel = params[f"conv_{i}/kernel"]
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        y = sum(
            padded[:, a : a + height, b : b + width] @ kernel[a, b]
            for a in range(5)
            for b in range(5)
        )
        y = y + params[f"conv_{i}/bias"]
        pooled = [y[:, a::2, b::2] for a in (0, 1) for b in (0, 1)]
        return np.maximum(np.max(pooled, axis=0), 0.0)

    x = layer(layer(2.0 * images - 1.0, 0), 1).reshape(3, -1)
    expected = np.maximum(x @ params["hidden/kernel"] + params["hidden/bias"], 0.0)
    np.testing.assert_allclose(classifier.features(images), expected, rtol=1e-4, atol=1e-4)


def test_uint8_and_floats_agree(trained):
    classifier, _ = trained
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.testing.assert_allclose(
        classifier.features(images), classifier.features(images / 255.0), rtol=1e-5, atol=1e-5
    )


def test_training_is_deterministic_and_seeded(digits):
    first, again, other = (train_small(digits, seed=seed) for seed in (0, 0, 1))
    assert first.hash == again.hash
    assert first.hash != other.hash
    assert len(first.hash) == 64
    assert np.isnan(first.validation_accuracy)
    assert np.isnan(first.test_accuracy)


def test_odd_sides_and_colours():
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 15, 3), dtype=np.uint8)
    classifier = train_classifier(images, [0, 1, 2] * 2, num_classes=3, dataset="x", num_epochs=1)
    assert classifier.logits(images).shape == (6, 3)


def test_round_trip(trained, digits, tmp_path):
    classifier, _ = trained
    path = tmp_path / "lenet.npz"
    classifier.save(path)
    loaded = load_classifier(path)
    assert loaded.hash == classifier.hash
    for name in ("name", "image_shape", "num_classes", "validation_accuracy", "test_accuracy"):
        assert getattr(loaded, name) == getattr(classifier, name)
    images = digits["test"][0]
    np.testing.assert_array_equal(loaded.features(images), classifier.features(images))


def test_bad_files_are_named(trained, tmp_path):
    classifier, _ = trained
    path = tmp_path / "lenet.npz"
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        classifier.save(tmp_path / "lenet.pickle")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_classifier(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable .npz"):
        load_classifier(path)
    np.savez(path, a=np.zeros(2))
    with pytest.raises(ValueError, match="not a classifier written by Classifier.save"):
        load_classifier(path)

    classifier.save(path)
    with np.load(path) as stored:
        good = {key: stored[key] for key in stored.files}

    def load(**changes):
        changed = {**good, **changes}
        np.savez(path, **{key: value for key, value in changed.items() if value is not None})
        return load_classifier(path)

    assert load().hash == classifier.hash
    with pytest.raises(ValueError, match="lacks dataset"):
        load(dataset=None)
    with pytest.raises(ValueError, match="is damaged"):
        load(image_shape=np.arange(2))
    with pytest.raises(ValueError, match="lacks array hidden/bias"):
        load(**{"hidden/bias": None})
    with pytest.raises(ValueError, match="unknown array extra"):
        load(extra=np.zeros(1))
    with pytest.raises(ValueError, match=r"output/bias must have shape \(10,\), got \(9,\)"):
        load(**{"output/bias": good["output/bias"][:9]})
    with pytest.raises(ValueError, match="do not match its sha256"):
        load(**{"output/bias": good["output/bias"] + 1})


def test_bad_input_is_named(trained, digits):
    classifier, _ = trained
    images, labels = digits["train"][0][:20], digits["train"][1][:20]

    def train(images=images, labels=labels, **options):
        options = {"num_classes": 10, "dataset": "x", "num_epochs": 1, **options}
        return train_classifier(images, labels, **options)

    for match, error, call in (
        ("at least 8x8", ValueError, lambda: train(images[:, 1:])),
        ("no axis empty", ValueError, lambda: train(images[:0], labels[:0])),
        (r"lie in \[0, 1\]", ValueError, lambda: train(16.0 * images)),
        (r"lie in \[0, 1\]", ValueError, lambda: train(np.nan * images)),
        ("got int64", TypeError, lambda: train(images.astype(np.int64))),
        ("labels must be integers", TypeError, lambda: train(labels=labels / 2)),
        (r"shape \(20,\)", ValueError, lambda: train(labels=labels[:19])),
        (r"labels must lie in 0\.\.4", ValueError, lambda: train(num_classes=5)),
        (r"labels must lie in 0\.\.9, got -", ValueError, lambda: train(labels=labels - 5)),
        ("all are 3", ValueError, lambda: train(labels=np.full(20, 3))),
        ("num_classes must be", ValueError, lambda: train(num_classes=1)),
        ("num_epochs must be", ValueError, lambda: train(num_epochs=0)),
        ("batch_size must be", ValueError, lambda: train(batch_size=0)),
        ("batch_size must be", TypeError, lambda: train(batch_size=2.0)),
        ("learning_rate must be", ValueError, lambda: train(learning_rate=0.0)),
        ("together, or neither", ValueError, lambda: train(validation_images=images)),
        (
            "validation_images must have the shape",
            ValueError,
            lambda: train(validation_images=images[:, :, 1:], validation_labels=labels),
        ),
        (
            "validation_labels must have shape",
            ValueError,
            lambda: train(validation_images=images, validation_labels=labels[1:]),
        ),
        (
            r"images must have shape \[n, 8, 8, 1\]",
            ValueError,
            lambda: classifier.features(images[:, 1:]),
        ),
        ("labels must have shape", ValueError, lambda: classifier.accuracy(images, labels[1:])),
    ):
        with pytest.raises(error, match=match):
            call()


def test_a_diverging_run_is_stopped(digits):
    with pytest.raises(FloatingPointError, match="diverged in epoch 1.*lower learning_rate"):
        train_small(digits, learning_rate=1e30, num_epochs=2)
