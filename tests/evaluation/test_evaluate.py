"""`evaluate_run` from end to end: what it writes, for every kind of run, and what it refuses."""

import dataclasses
import html
import io
import json
import math
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from avae_jax.data import ImageData, Splits, load_dataset
from avae_jax.evaluation import evaluate_run
from avae_jax.evaluation.classify import train_on
from avae_jax.evaluation.compare import compare, comparison_page, flatten
from avae_jax.evaluation.latent import describe_codes
from avae_jax.evaluation.material import describe, gather
from avae_jax.evaluation.samples import (
    FeatureSpace,
    _compare,
    advise_samples,
    draw_codes,
    rms_multiples,
)
from avae_jax.features import InceptionWeights, inception_shapes, save_inception_npz
from avae_jax.priors import FullGaussian
from avae_jax.training import config as cfg
from avae_jax.training.run import CODES_FILE

from .conftest import train

QUICK = {"about", "verdict", "training", "reconstruction", "latent"}
SECTIONS = QUICK | {"likelihood", "samples", "disentanglement"}


@pytest.fixture(scope="module")
def evaluated(digits_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    lines = []
    summary = evaluate_run(
        digits_run, output=folder, say=lines.append,
        features={"thumbnails": lambda x: x[:, ::2, ::2].reshape(len(x), -1) + 0.1},
    )  # fmt: skip
    return summary, folder, lines


def test_every_section_is_there_and_the_file_is_strict_json(evaluated):
    summary, folder, lines = evaluated
    assert set(summary) == SECTIONS

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    stored = json.loads((folder / "summary.json").read_text(), parse_constant=refuse)
    assert set(stored) == SECTIONS
    assert stored["latent"]["moments"]["std"] == summary["latent"]["moments"]["std"]
    assert {path.name for path in folder.iterdir()} == {"report.html", "summary.json", "figures"}
    assert len(lines) > 5
    page = (folder / "report.html").read_text()
    for said in (
        stored["verdict"]["headline"],
        *(f["text"] for f in stored["verdict"]["findings"]),
    ):
        assert html.escape(said[1:]) in page
    assert page.count('class="tag ') == len(stored["verdict"]["findings"])


def check_subset(quick, whole, path=""):
    """Check that every entry of a summary is in another, with the same value."""
    for name, value in quick.items():
        at = f"{path}/{name}"
        if at == "/about/seconds":
            continue
        assert name in whole, at
        if at == "/verdict/findings":
            # What the samples say comes to them.
            one, other = (
                [finding for finding in found if finding["name"] != "samples"]
                for found in (value, whole[name])
            )
            assert one == other
        elif isinstance(value, dict):
            check_subset(value, whole[name], at)
        elif isinstance(value, float):
            np.testing.assert_allclose(whole[name], value, rtol=1e-5, atol=1e-7, err_msg=at)
        else:
            assert whole[name] == value, at


def test_the_quick_part_is_a_part_of_the_whole(evaluated, digits_run, tmp_path):
    quick = evaluate_run(digits_run, quick=True, output=tmp_path)
    assert set(quick) == QUICK
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    check_subset(quick, evaluated[0])
    # What the verdict does not read is left to the whole.
    assert "prior_coverage" not in quick["latent"]["holes"]


def test_a_brief_evaluation_is_a_part_of_the_whole(evaluated, digits_run, tmp_path):
    """What methods are compared by; without a page, and with the moments of the codes."""
    codes = digits_run.path / CODES_FILE
    codes.unlink(missing_ok=True)
    brief = evaluate_run(
        digits_run, brief=True, output=tmp_path,
        features={"thumbnails": lambda x: x[:, ::2, ::2].reshape(len(x), -1) + 0.1},
    )  # fmt: skip
    assert set(brief) == SECTIONS
    check_subset(brief, evaluated[0])
    assert "distances" not in brief["latent"]
    assert np.isfinite(brief["latent"]["holes"]["prior_coverage"])
    section = brief["samples"]["FD-thumbnails"]
    assert {"FD-thumbnails", "precision", "recall", "rms_multiple"} <= set(section["claimed"])
    assert "vendi" not in section["claimed"]
    assert "pixels" not in brief["samples"]
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "figures"}
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"samples.png", "reconstructions.png"}
    assert np.load(codes)["step"] == digits_run.step


def test_an_image_is_encoded_once(vae_run, tmp_path, monkeypatch):
    """A stochastic encoder's mean, draw and density are of one pass."""
    seen = []
    original = type(vae_run).map_rows

    def map_rows(self, function, *arrays):
        if function is self._encode:
            seen.append(len(arrays[0]))
        return original(self, function, *arrays)

    monkeypatch.setattr(type(vae_run), "map_rows", map_rows)
    summary = evaluate_run(vae_run, output=tmp_path, num_samples=50, iwae_samples=5)
    about = summary["about"]
    assert seen == [about["num_images"], about["num_train_images"]]


def test_a_stopped_evaluation_goes_on(vae_run, tmp_path, monkeypatch):
    options = {"num_samples": 50, "num_images": 100, "iwae_samples": 3, "output": tmp_path}
    module = sys.modules["avae_jax.evaluation.evaluate"]
    made = {}

    def once(name):
        original = getattr(module, name)

        def describe(*arguments, **named):
            assert name not in made
            made[name] = original(*arguments, **named)
            return made[name]

        monkeypatch.setattr(module, name, describe)

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    once("describe_codes")
    once("describe_likelihood")
    with monkeypatch.context() as patch:
        patch.setattr(module, "describe_samples", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(vae_run, **options)
    assert not (tmp_path / "summary.json").exists()
    summary = evaluate_run(vae_run, **options)
    assert set(summary) == SECTIONS
    check_subset(summary["latent"], made["describe_codes"][0])
    check_subset(summary["likelihood"], made["describe_likelihood"])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"figures", "report.html", "summary.json"}


@pytest.mark.slow
def test_a_run_with_a_learned_mixture_is_compared_with_its_mixture(tmp_path):
    config = cfg.replace_fields(
        cfg.load_experiment("digits"), num_epochs=3, batch_size=96, width=1.0, method="vae",
        prior="mixture", num_components=3, latent_dim=4,
    )  # fmt: skip
    run = train(tmp_path / "run", config)
    quick = evaluate_run(run, quick=True)
    assert {path.name for path in (run.path / "figures").iterdir()} == {
        "samples.png", "reconstructions.png", "latent_scatter.png", "covariance.png",
        "training_curves.png",
    }  # fmt: skip
    whole = evaluate_run(run, num_samples=60, iwae_samples=5)
    check_subset(quick, whole)
    assert whole["latent"]["prior"] == "a mixture of 3 Gaussians"
    assert whole["latent"]["moments"].startswith("not computed")
    surgery, bound = whole["likelihood"]["surgery"], whole["likelihood"]["bound"]
    parts = surgery["mutual_information"] + surgery["marginal_kl"]
    assert abs(surgery["average_kl"] - parts) <= 5 * surgery["identity_residual_stderr"]
    assert abs(bound["elbo"] - surgery["elbo"]) < 5 * bound["elbo_stderr"] + 1.0
    assert {"floor", "claimed", "gaussian", "mixture_10"} <= set(whole["samples"]["FD-pca50"])
    assert "standard_normal" not in whole["samples"]["FD-pca50"]
    # What is decoded are draws of the mixture.
    expected = run.prior().sample(jax.random.key(10), 7)
    np.testing.assert_array_equal(draw_codes(gather(run), 7, quick=True)["claimed"], expected)
    text = (run.path / "evaluation" / "report.html").read_text()
    assert "a mixture of 3 Gaussians" in text


def test_numbers_say_where_they_come_from(evaluated, digits_run):
    about = evaluated[0]["about"]
    assert about["split"] == "test"
    assert about["num_images"] == 359
    assert about["seed"] == 0
    assert about["checkpoint_step"] == digits_run.step
    assert re.fullmatch(r"[0-9a-f]{16}", about["config_hash"])
    assert {"avae_jax", "jax", "numpy", "python"} <= set(about["versions"])
    for section in ("reconstruction", "latent"):
        assert evaluated[0][section]["n"] == 359
    assert all("n" in s for s in evaluated[0]["samples"].values() if isinstance(s, dict))


def test_numbers_stand_beside_their_nulls(evaluated):
    latent = evaluated[0]["latent"]
    for section, names in {
        "density": ["kde_kl", "whitened_entropy"],
        "moments": ["moment_kl", "radial_ks", "eig_min", "effective_rank"],
        "distances": [
            "sliced_w2", "max_sliced_w2", "mmd_rbf", "mmd_imq", "energy_distance", "knn_kl",
            "c2st_auc", "mmd_fuse",
        ],
        "normality": ["mardia_skewness", "mardia_kurtosis", "henze_zirkler"],
        "dependence": ["total_correlation_gaussian", "dimension_kl_sum"],
        "collapse": ["active_units", "relevant_directions"],
        "holes": ["prior_coverage", "far_prior_share", "disc_share", "slab_share", "ball_share"],
    }.items():  # fmt: skip
        for name in names:
            assert math.isfinite(latent[section][name]), name
            assert f"{name}_null" in latent[section], name
    # One name, one set of codes.
    assert not latent["shape"].keys() & (latent["distances"].keys() | latent["moments"].keys())
    for section, names in {
        "density": ["kde_kl", "whitened_entropy"],
        "moments": ["moment_kl", "radial_ks", "eig_min", "effective_rank"],
        "distances": ["sliced_w2", "max_sliced_w2", "knn_kl", "c2st_auc", "energy_distance"],
        "dependence": ["total_correlation_neighbors", "dimension_kl_sum"],
    }.items():
        for name in names:
            assert latent[section][f"{name}_null_std"] > 0.0, name
    assert math.isfinite(latent["scale"]["unevenness_test_zscore"])


@pytest.mark.parametrize("n", [2, 3, 6])
def test_a_handful_of_images_is_compared_as_far_as_it_can_be(n):
    x, y = np.random.default_rng(0).standard_normal((2, n, 4))
    floor = _compare(FeatureSpace("FD", lambda x: x, {}), x, y, 0, None)
    found = _compare(FeatureSpace("FD", lambda x: x, {}), y, x, 0, floor)
    assert ("clipped_density" in floor) == (n > 2)
    assert math.isfinite(found["FD"])
    assert found["vendi_null"] == floor["vendi_null"]


@pytest.mark.parametrize(("own", "said"), [((1.0, 2.0), True), ((1.0, 4.0), False)])
def test_a_scale_is_recommended_where_its_samples_scored_better(own, said):
    numbers = {
        name: {"n": 9, **{key: {name: x} for key, x in
                          {"gaussian": mine, "claimed": 3.0, "floor": 0.5}.items()}}
        for name, mine in zip(("FD-a", "FD-b"), own, strict=True)
    }  # fmt: skip
    text = advise_samples({**numbers, "FID": "not computed", "pixels": {"gaussian": {}}})
    assert bool(text) == said
    assert not advise_samples({"FD-a": {"gaussian": {"FD-a": 1.0}, "floor": {"FD-a": 0.5}}})
    if said:
        assert "--scale covariance" in text
        assert "FD-b 2.00 against 3.00, training images 0.500" in text


def test_samples_of_every_prior_stand_beside_the_floor(evaluated):
    samples = evaluated[0]["samples"]["FD-pca50"]
    priors = {"floor", "claimed", "standard_normal", "gaussian", "mixture_10"}
    assert priors <= set(samples)
    for name in priors:
        named = {"FD-pca50", "polynomial_mmd_null_std", "precision", "recall", "prd_f8_null_std"}
        assert named <= set(samples[name])
        # 359 images are fewer than a subset of the KID.
        assert "kid" not in samples[name]
        for number in ("FD-pca50", "prd_f8", "prd_f1_8"):
            nulls = [samples[of][f"{number}_null"] for of in (name, "floor")]
            assert nulls[0] == nulls[1] > 0.0
        assert 0.0 < samples[name]["vendi"] <= 50.0
        assert 0.0 <= samples[name]["clipped_coverage"] <= 1.0
        assert ("fld" in samples[name]) == (name != "floor")
    # A model of a few seconds does not copy.
    assert samples["claimed"]["fld_gap"] > 5.0 * samples["claimed"]["fld_gap_null"]
    assert samples["floor"]["FD-pca50"] < 0.5
    floor = samples["floor"]
    assert abs(floor["FD-pca50"] - floor["FD-pca50_null"]) < 6 * floor["FD-pca50_null_std"]
    assert {"distance_ratio", "auth_pct"} <= set(evaluated[0]["samples"]["pixels"]["claimed"])


def test_how_wide_the_draws_are_stands_beside_every_distance(evaluated, digits_run):
    summary, about = evaluated[0], evaluated[0]["about"]
    assert about["sampled_by"] == "claimed"
    spaces = {name: s for name, s in summary["samples"].items() if isinstance(s, dict)}
    z = digits_run.encode(gather(digits_run).x).astype(np.float64)
    own = math.sqrt(np.square(z - z.mean(axis=0)).sum(axis=1).mean() / z.shape[1])
    for section in spaces.values():
        assert "rms_multiple" not in section["floor"]
        # Draws of N(0, I), and of a Gaussian with the codes' own covariance.
        n = 5 / math.sqrt(2 * 359 * z.shape[1])
        assert section["standard_normal"]["rms_multiple"] == pytest.approx(1 / own, rel=n)
        assert section["gaussian"]["rms_multiple"] == pytest.approx(1.0, rel=0.15)


def test_a_method_that_claims_no_prior_is_sampled_by_its_codes(digits_run, tmp_path):
    class Aimless(type(digits_run.method)):
        sampled_by = "covariance"

    fields = {f.name: getattr(digits_run.method, f.name) for f in dataclasses.fields(Aimless)}
    run = dataclasses.replace(digits_run, method=Aimless(**fields))
    material = gather(run)
    codes = draw_codes(material, 200, quick=True)
    assert list(codes) == ["gaussian", "standard_normal"]
    assert describe(material)["sampled_by"] == "gaussian"
    mean, covariance = material.train_moments()
    np.savez(tmp_path / CODES_FILE, mean=mean, covariance=covariance, step=run.step)
    moved = dataclasses.replace(run, path=tmp_path)
    want = run.decode(FullGaussian.of_moments(mean, covariance).sample(jax.random.key(1), 3))
    np.testing.assert_array_equal(moved.sample(3, seed=1), want)
    doubled = {name: 2 * z for name, z in codes.items()}
    for name, multiple in rms_multiples(material, codes).items():
        assert rms_multiples(material, doubled)[name] == pytest.approx(2 * multiple)
    paper = gather(run, protocol="paper")
    assert list(draw_codes(paper, 20)) == ["gaussian"]
    said = [evaluate_run(r, quick=True, output=tmp_path / "q") for r in (run, digits_run)]
    aimless, aimed = (summary["verdict"]["headline"] for summary in said)
    assert aimless.startswith("The method aims its codes at no prior")
    assert aimless.endswith(aimed)


def test_features_of_the_caller_are_named_by_them(evaluated):
    section = evaluated[0]["samples"]["FD-thumbnails"]
    assert section["features"] == "thumbnails, the caller's"
    for name in ("floor", "claimed"):
        assert math.isfinite(section[name]["FD-thumbnails"])
        assert section[name]["cmmd_null_std"] > 0.0
    assert "cmmd" not in evaluated[0]["samples"]["FD-pca50"]["claimed"]


def test_without_weights_fid_is_not_computed(evaluated):
    assert evaluated[0]["samples"]["FID"].startswith("not computed")
    text = (evaluated[1] / "report.html").read_text()
    assert "not computed: give the Inception weights" in text


def test_the_page_holds_all_figures(evaluated):
    text = (evaluated[1] / "report.html").read_text()
    assert text.count("data:image/png;base64,") >= 9
    assert text.count("data:image/gif;base64,") == 2
    for heading in ("Samples", "Reconstructions", "Radius", "Where no code is near", "All numbers"):
        assert heading in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_walks_move(evaluated):
    import base64

    text = (evaluated[1] / "report.html").read_text()
    found = re.search(r"data:image/gif;base64,([^\"]+)", text)
    assert found is not None
    moving = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert getattr(moving, "n_frames", 1) > 20
    first = np.asarray(moving.convert("L"), float)
    moving.seek(20)
    assert np.abs(np.asarray(moving.convert("L"), float) - first).max() > 50


def test_the_same_seed_gives_the_same_numbers(evaluated, digits_run):
    again, _ = describe_codes(gather(digits_run))
    a, b = flatten(evaluated[0]["latent"]), flatten(again)
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_papers_protocol(digits_run, tmp_path):
    summary = evaluate_run(digits_run, protocol="paper", output=tmp_path, num_samples=100)
    assert summary["about"]["split"] == "validation"
    density = summary["latent"]["density"]
    assert "kde_kl" not in density
    np.testing.assert_allclose(
        density["kde_kl_log10"] - density["kde_kl_log10_null"],
        density["kl_excess_nats"] / math.log(10),
        rtol=1e-6,
    )
    assert set(summary["samples"]["FD-pca50"]) >= {"floor", "claimed"}
    assert "mixture_10" not in summary["samples"]["FD-pca50"]


def test_models_can_be_chosen_by_validation_images(digits_run):
    material = gather(digits_run, split="validation", num_images=40)
    assert np.isin(material.index, material.dataset.splits.validation).all()
    assert (describe(material)["split"], material.protocol) == ("validation", "standard")
    assert gather(digits_run, num_images=40).split == "test"


def test_samples_are_truncated_to_8_bits_by_the_papers_protocol(digits_run):
    from avae_jax.evaluation.samples import _as_shown

    x = np.array([0.0, 0.5, 0.999, 1.0], np.float32)[:, None]
    paper = gather(digits_run, protocol="paper", num_images=10)
    np.testing.assert_allclose(255 * _as_shown(paper, x)[:, 0], [0, 127, 254, 255], atol=1e-4)
    standard = gather(digits_run, num_images=10)
    np.testing.assert_array_equal(_as_shown(standard, x), x)


def test_a_stochastic_encoder_gets_its_elbo_taken_apart(vae_run, tmp_path):
    summary = evaluate_run(vae_run, output=tmp_path, num_samples=50, iwae_samples=20)
    surgery, bound = summary["likelihood"]["surgery"], summary["likelihood"]["bound"]
    parts = surgery["mutual_information"] + surgery["marginal_kl"]
    slack = 5 * surgery["identity_residual_stderr"]
    assert abs(surgery["average_kl"] - parts) <= slack
    assert bound["iwae"] >= bound["elbo"]
    assert surgery["elbo"] == pytest.approx(surgery["reconstruction"] - surgery["average_kl"])
    # The bound's own ELBO is of other images and draws, but of the same model.
    assert abs(bound["elbo"] - surgery["elbo"]) < 5 * bound["elbo_stderr"] + 1.0


def test_a_deterministic_encoder_has_no_elbo(evaluated):
    assert "deterministic" in evaluated[0]["likelihood"]
    assert "not known" in evaluated[0]["disentanglement"]


def test_features_of_a_classifier_and_of_inception(digits_run, tmp_path):
    net = train_on(load_dataset("digits"), num_epochs=2)
    net.save(tmp_path / "lenet.npz")
    summary = evaluate_run(
        digits_run, classifier=tmp_path / "lenet.npz", output=tmp_path, num_samples=60
    )
    section = summary["samples"]["FD-lenet-digits"]
    assert section["classifier_hash"] == net.hash[:16]
    assert section["classifier_test_accuracy"] == pytest.approx(net.test_accuracy)
    assert section["claimed"]["FD-lenet-digits"] > 0


@pytest.mark.slow
def test_fid_with_weights(digits_run, tmp_path):
    rng = np.random.default_rng(0)
    params = {
        name: (np.ones(shape) if name.endswith(("scale", "var")) else 0.05 * rng.normal(size=shape))
        for name, shape in inception_shapes().items()
    }
    params = {name: a.astype(np.float32) for name, a in params.items()}
    save_inception_npz(InceptionWeights(params, "0" * 64, "0" * 64), tmp_path / "weights.npz")
    summary = evaluate_run(
        digits_run, inception_weights=tmp_path / "weights.npz", output=tmp_path,
        protocol="paper", num_images=20, num_samples=20,
    )  # fmt: skip
    assert summary["samples"]["FID"]["resize"] == "legacy_pytorch"
    assert math.isfinite(summary["samples"]["FID"]["claimed"]["FID"])


def test_plain_data_gets_a_report_too(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.split(np.arange(600, dtype=np.int32), [400, 480])
    x = rng.normal(size=(600, 3)).astype(np.float32) @ rng.normal(size=(3, 6)).astype(np.float32)
    dataset = ImageData("rows", x, None, Splits(*rows))
    config = cfg.configure(
        architecture="mlp", latent_dim=3, width=0.1, activation="linear", num_centers=200,
        batch_size=96, num_epochs=5,
    )  # fmt: skip
    run = train(tmp_path / "run", config, dataset=dataset)
    summary = evaluate_run(run, dataset=dataset, output=tmp_path / "out")
    assert summary["about"]["num_images"] == 120
    assert "ssim" not in summary["reconstruction"]
    assert "FID" not in summary["samples"]
    with pytest.raises(ValueError, match="are no images"):
        evaluate_run(
            run, dataset=dataset, output=tmp_path / "other", classifier=_classifier(tmp_path)
        )
    assert not (tmp_path / "other").exists()


def _classifier(folder):
    path = folder / "net.npz"
    train_on(load_dataset("digits"), num_epochs=1).save(path)
    return path


def test_runs_side_by_side(evaluated, vae_run, tmp_path):
    first = evaluated[0]
    second = json.loads(json.dumps(first))
    second["about"] |= {"training_seed": 1, "folder": "runs/other"}
    second["reconstruction"]["mse"] = first["reconstruction"]["mse"] + 0.002
    columns, rows = compare([first, second])
    assert len(columns) == 1
    assert columns[0].endswith("(2 seeds)")
    mean, spread = rows["reconstruction/mse"][0].split(" ± ")
    assert float(mean) == pytest.approx(first["reconstruction"]["mse"] + 0.001, rel=1e-2)
    assert float(spread) == pytest.approx(0.002 / math.sqrt(2), rel=1e-2)

    third = evaluate_run(vae_run, output=tmp_path, num_samples=50, iwae_samples=5)
    columns, rows = compare([first, second, third])
    assert len(columns) == 2
    assert rows["likelihood/surgery/elbo"][0] == "–"
    page = comparison_page([first, second, third])
    assert page.count('class="verdict') == 3
    assert "(2 seeds)" in page


def test_another_configuration_is_another_group(evaluated):
    first = evaluated[0]
    second = json.loads(json.dumps(first))
    second["about"] |= {"config_hash_without_seed": "x" * 16, "folder": "runs/other"}
    columns, _ = compare([first, second])
    assert len(set(columns)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 1}, "num_images must be .* at least 20, got 1"),
        ({"num_samples": 5}, "num_samples must be .* at least 20, got 5"),
        ({"iwae_samples": 0}, "iwae_samples must be .* at least 1, got 0"),
        ({"seed": -1}, "seed must be .* at least 0, got -1"),
        ({"classifier": "nowhere.npz"}, "nowhere.npz does not exist"),
        ({"inception_weights": "nowhere.npz"}, "nowhere.npz"),
        (
            {"quick": True, "features": {"mine": np.asarray}},
            "features must be left out with quick=True, got mine: ",
        ),
        ({"features": {"mine": np.asarray}}, r"FD-mine gives \[2, 8, 8, 1\] for 2: flatten"),
    ],
)
def test_bad_input_is_refused_before_the_work(digits_run, changes, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        evaluate_run(digits_run, output=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_output_is_refused(digits_run, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out is a file"):
        evaluate_run(digits_run, output=tmp_path / "out" / "deeper")
    assert (tmp_path / "out").read_text() == "mine"


def test_codes_that_are_not_finite_are_refused(digits_run, tmp_path):
    from .conftest import with_codes

    broken = with_codes(digits_run, lambda z: z.at[0, 0].set(float("nan")), lambda z: z)
    with pytest.raises(ValueError, match="not finite"):
        evaluate_run(broken, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
