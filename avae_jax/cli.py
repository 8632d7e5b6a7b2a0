"""The command line: `avae train | check | sample | encode | reconstruct | bandwidth | ...`.

An error is one line on standard error and exit code 2; an interrupted run exits with 130.
"""

import contextlib
import dataclasses
import importlib.resources
import io
import itertools
import logging
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

from tyro.conf import Positional

from avae_jax.arguments import (
    arguments_of,
    options_of,
    read,
    read_parts,
    read_with_fields,
    wants_help,
)
from avae_jax.comparison.numbers import JUDGES, Judge
from avae_jax.files import check_folder, user_path, write_atomically, written_whole
from avae_jax.methods import DEFAULT, METHODS
from avae_jax.text import nearest, refusal
from avae_jax.training.config import (
    SECTIONS,
    Config,
    ConfigError,
    check_config,
    choose_method,
    experiment_names,
    find_method,
    own_images,
    read_experiment,
)

BENCHMARKS = {"kernel": "pairwise_lse.py"}


@dataclasses.dataclass(frozen=True)
class _Run:
    """What is trained, and where it is kept."""

    method: "Literal[tuple(METHODS)]" = DEFAULT.name  # pyright: ignore[reportInvalidTypeForm]
    """How to train. Its own options are listed below; with another --method, --help lists that
    one's."""
    run_dir: Path | None = None
    """The run folder; runs/EXPERIMENT when not given. One that holds the same configuration is
    continued."""
    experiment: str = "unnamed"
    """Name shown in the summary, and of the run folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RunData:
    """Where the images of a run lie."""

    data_path: Path | None = None
    """Where the images of the run lie now, if they have moved; the run folder remembers it."""
    data_dir: Path | None = None
    """Where its prepared tfds data lies now, likewise."""


@dataclasses.dataclass(frozen=True)
class _Evaluate(_RunData):
    """Evaluate trained models on images they have never seen, and write a report."""

    runs: Positional[tuple[Path, ...]]
    """Run folders; several are put side by side, with mean and spread over seeds."""
    protocol: Literal["standard", "paper"] = "standard"
    """standard: the test split. paper: the authors' choices (validation split, samples cut to 8
    bits, base-10 logarithms, 10 bins)."""
    num_images: int = 10_000
    """The most images of a split to use."""
    num_samples: int = 10_000
    """The most decoded draws of a prior to use."""
    seed: int = 0
    """Seed of every draw."""
    inception_weights: Path | None = None
    """Inception weights (.npz, the pickle of jax-fid, or the .pth of pytorch-fid) for FID; without
    them FID is not computed."""
    classifier: Path | None = None
    """A classifier that `avae classifier` wrote, for distances in its features."""
    iwae_samples: int = 500
    """Draws per image for the importance-weighted bound (stochastic encoders)."""
    factors: Literal["none", "scores", "dci"] = "scores"
    """Data with known factors: scores encodes most of their grid; dci adds DCI, minutes long."""
    output: Path | None = None
    """Folder to write summary.json and report.html to; RUN/evaluation when not given, and
    evaluation/ for the comparison of several runs."""


@dataclasses.dataclass(frozen=True)
class _Compare:
    """Train methods on the same data from the same weights, and put them in one table.

    A field of the configuration, as `avae train` lists them, holds for every method that has it:
    avae compare digits --methods ae vae avae --num-epochs 20. The same command goes on where one
    was stopped.
    """

    experiments: Positional[tuple[str, ...]]
    """Experiments, as `avae train` takes them, or one .toml file of a plan: experiments, methods,
    seeds, fields, reference, judge; [methods.LABEL] and [experiments.NAME] hold fields of their
    own, [tune.LABEL] lists of values to try."""
    methods: tuple[str, ...] = dataclasses.field(
        default=(), metadata={"table": ("avae_jax.methods", "METHODS")}
    )
    """Methods to compare; all that the experiment can train when not given."""
    seeds: tuple[int, ...] = ()
    """Seeds of splits, batches, initial weights and noise, the same for all methods; 0 1 2 when not
    given."""
    reference: str | None = None
    """The method that others are compared with; the library's own when not given."""
    tune: tuple[str, ...] = ()
    """Fields to tune, METHOD.FIELD, each with values to try after it: beta_vae.beta 1 4 16
    wae.weight 10 100 1000. As many trials for every method named, each a run of the first seed;
    test images are for the best values alone, which all seeds are trained with."""
    judge: Judge | None = None
    """What is best on validation images, the lowest: FD of samples as the method draws them, mse of
    reconstructions, moment KL or KDE KL of codes; fd when not given."""
    only: tuple[str, ...] = ()
    """Run now only cells that fit a pattern, such as vae or 'digits/*/seed0'; the table is of all
    that are finished."""
    quick: bool = False
    """Measure reconstruction and codes alone: no samples, no likelihood, no factors."""
    num_images: int = 10_000
    """The most images of a split to use."""
    num_samples: int = 10_000
    """The most decoded draws of a distribution to use."""
    iwae_samples: int = 500
    """Draws per image for the importance-weighted bound (stochastic encoders)."""
    factors: Literal["none", "scores", "dci"] = "scores"
    """Data with known factors: scores encodes most of their grid; dci adds DCI, minutes long."""
    classifier: Path | None = None
    """A classifier that `avae classifier` wrote, for distances in its features; when not given, one
    is trained on each data set with labels."""
    inception_weights: Path | None = None
    """Inception weights for FID; without them FID is not computed."""
    output: Path | None = None
    """The comparison's folder; comparisons/EXPERIMENTS when not given."""


@dataclasses.dataclass(frozen=True)
class _Classifier:
    """Train a classifier on a labeled data set, for its features."""

    dataset: Positional[str]
    """A data set with labels."""
    data_path: str | None = None
    """The file of data set array."""
    data_dir: str | None = None
    """Where prepared tfds data lies."""
    num_epochs: int = 5
    """Passes over the training split."""
    seed: int = 0
    """Seed of splits, initial weights and batches."""
    output: Path | None = None
    """File to write; lenet-DATASET.npz when not given."""
    overwrite: bool = False
    """Replace a file that is there."""


@dataclasses.dataclass(frozen=True)
class _Sample:
    """Draw images from a trained model."""

    run: Positional[Path]
    """The run folder."""
    num_samples: int = 64
    """How many images."""
    scale: Literal["claimed", "measured", "covariance"] | float | str | None = None
    """Distribution of the codes; what the method samples by when not given. claimed: the prior that
    the method aims them at; measured: N(mean, s^2 I) with their own mean and s; covariance: a
    Gaussian with their mean and covariance; a number: N(0, s^2 I) with that s; or another name that
    the run's method knows."""
    seed: int = 0
    """Seed of the draw."""
    output: Path = Path("samples")
    """Where to write: OUTPUT.npy (float32 images) and OUTPUT.png (a grid)."""
    overwrite: bool = False
    """Replace files that are there."""


@dataclasses.dataclass(frozen=True)
class _Encode(_RunData):
    """Encode images with a trained model."""

    run: Positional[Path]
    """The run folder."""
    images: Positional[Literal["train", "validation", "test"] | str]
    """train, validation or test (the run's own splits), a folder of images, or a .npy/.npz file."""
    output: Path = Path("codes.npy")
    """Where to write the codes, float32 [n, latent_dim]; beside images of a folder, OUTPUT.csv says
    which file each row is of."""
    overwrite: bool = False
    """Replace a file that is there."""


@dataclasses.dataclass(frozen=True)
class _Reconstruct(_RunData):
    """Encode and decode images with a trained model."""

    run: Positional[Path]
    """The run folder."""
    images: Positional[Literal["train", "validation", "test"] | str]
    """train, validation or test (the run's own splits), a folder of images, or a .npy/.npz file."""
    output: Path = Path("reconstructions")
    """Where to write: OUTPUT.npy (float32 images) and OUTPUT.png (24 of them, 12 of plain data,
    from all over the images, under theirs); beside images of a folder, OUTPUT.csv says which file
    each row is of."""
    overwrite: bool = False
    """Replace files that are there."""


@dataclasses.dataclass(frozen=True)
class _Bandwidth:
    """Find the kernel bandwidth for a latent space."""

    latent_dim: Positional[int]
    """Dimensions of the latent space."""
    num_centers: Positional[int]
    """Number of codes in the density estimate."""
    seed: int = 0
    """Seed of the draws."""
    num_queries: int = 2000
    """Points the log density is averaged over."""
    num_trials: int = 1
    """Independent repetitions."""
    cache: bool = True
    """Look the value up and keep it in the user's cache folder."""


@dataclasses.dataclass(frozen=True)
class _Prepare:
    """Download and prepare a data set."""

    dataset: Positional[str] = dataclasses.field(metadata={"table": ("avae_jax.data", "PREPARED")})
    """What to prepare."""
    data_dir: str | None = None
    """Where to put it; TFDS_DATA_DIR, then tfds's own default, when not given."""


@dataclasses.dataclass(frozen=True)
class _Completion:
    """Print what makes a shell complete commands, experiments, fields and their values.

    bash: avae completion bash > ~/.avae.bash, and in ~/.bashrc: source ~/.avae.bash

    zsh: avae completion zsh > ~/.avae.zsh, and in ~/.zshrc, after compinit: source ~/.avae.zsh

    fish: avae completion fish > ~/.config/fish/completions/avae.fish
    """

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """Which shell."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 when done, 2 on bad input, 1 on failure, 130 when interrupted."""
    # A notebook hands its own backend down, which may not even be installed here.
    os.environ["MPLBACKEND"] = "Agg"
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from avae_jax.version import __version__

        print(__version__)
        return 0
    name, rest = arguments[0], list(arguments[1:])
    if name not in COMMANDS:
        print(f"avae: error: unknown command {name!r}{_meant(name)}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    try:
        if command.arguments is None:
            return command.function(rest)
        return command.function(read(command.arguments, name, rest, operands=command.operands))
    except KeyboardInterrupt:
        print("avae: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has seen enough; Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"avae {name}: error: {message}", file=sys.stderr)
        return 2


def usage() -> str:
    """Return what `avae --help` prints."""
    lines = [f"  {f'{name} {it.operands}':<24} {it.does}" for name, it in COMMANDS.items()]
    lists = {"Experiments": experiment_names(), "Methods": METHODS}
    return "\n".join(
        [
            "usage: avae COMMAND ...",
            "",
            "commands:",
            *lines,
            "",
            "`avae COMMAND --help` lists the arguments.",
            *(f"{name}: {', '.join(entries)}." for name, entries in lists.items()),
            "",
        ]
    )


def _meant(word: str) -> str:
    """Return the end of the message on a word that is no command."""
    if word in experiment_names():
        return f"; did you mean 'avae train {word}'?"
    return nearest(word, [*COMMANDS, "--help", "--version"])


def _is_experiment(word: str) -> bool:
    """Return whether a word may be what `avae train` takes first."""
    if word.startswith("-"):
        return False
    return word in experiment_names() or word.endswith(".py") or own_images(word) is not None


def _method_of(arguments: list[str], default: str) -> str:
    """Return the method that arguments name: which others there are depends on it."""
    name = default
    for argument, after in itertools.pairwise([*arguments, ""]):
        if argument == "--method":
            if not after or after.startswith("-"):
                raise ConfigError(
                    f"--method must be one of {', '.join(METHODS)}, got none: name one"
                )
            name = after
        elif argument.startswith("--method="):
            name = argument.removeprefix("--method=")
    return name


def _experiment(command: str, arguments: list[str]) -> tuple[Config, Path]:
    """Read an experiment and the fields that replace its own."""
    names = experiment_names()
    if arguments and not arguments[0].startswith("-"):
        experiment, rest = arguments[0], arguments[1:]
        default, presets = read_experiment(experiment)
    elif wants_help(arguments):
        experiment, rest, default, presets = "EXPERIMENT", arguments, Config(), {}
    elif late := [word for word in arguments if _is_experiment(word)]:
        raise ConfigError(
            f"the experiment must come first, got {arguments[0]}: write avae {command} {late[0]} "
            f"{arguments[0]} ..."
        )
    else:
        raise ConfigError(
            f"no experiment given: name one of {', '.join(names)}, a .py file, a folder of images, "
            "or a .npy/.npz file"
        )
    experiment_method = default.method.name
    name = _method_of(rest, experiment_method)
    find_method(name)
    default = choose_method(default, presets, name)
    # One flat list of arguments: every part's own fields, those of the method among them.
    parts = {"run": _Run(method=name, experiment=default.experiment)}
    parts |= {section: getattr(default, section) for section in SECTIONS}
    chosen = "" if name == experiment_method else f" --method {name}"
    parts = read_parts(parts, f"{command} {experiment}{chosen}", rest)
    own = parts.pop("run")
    config = dataclasses.replace(default, experiment=own.experiment, **parts)
    return config, own.run_dir or Path("runs") / config.experiment


def _train(arguments: list[str]) -> int:
    config, run_dir = _experiment("train", arguments)
    _quiet()
    from avae_jax.training import loop

    config, own = _fit_to_own_images(config, run_dir, arguments)
    try:
        loop.train(config, run_dir, **own)
    except loop.Interrupted as stopped:
        command = " ".join(["avae train", *arguments])
        print(
            f"avae: stopped at step {stopped}, saved in {run_dir}; go on with: {command}",
            file=sys.stderr,
        )
        return 130
    except loop.TrainingError as error:
        print(f"avae train: {error}", file=sys.stderr)
        return 1
    # What only an evaluation needs is read after training.
    from avae_jax.evaluation import evaluate_run
    from avae_jax.evaluation.show import print_evaluation

    summary = evaluate_run(run_dir, quick=True, say=_say)
    print_evaluation(summary, run_dir / "figures", run_dir / "summary.json")
    print(
        f"{time.monotonic() - _START:.0f} s in all; also: tensorboard --logdir {run_dir}, "
        f"avae evaluate {run_dir}"
    )
    return 0


def _check(arguments: list[str]) -> int:
    config, run_dir = _experiment("check", arguments)
    _quiet()
    from avae_jax.training.preflight import check
    from avae_jax.training.table import print_summary

    config, own = _fit_to_own_images(config, run_dir, arguments)
    print_summary(check(config, **own))
    return 0


def _fit_to_own_images(
    config: Config, run_dir: Path, arguments: list[str]
) -> tuple[Config, dict[str, Any]]:
    """Where a path to images stands for an experiment, choose what is not given to fit them.

    Returns:
      The configuration, and the images as what `loop.train` and `check` take.
    """
    if own_images(arguments[0]) is None:
        return config, {}
    from avae_jax.mesh import make_mesh
    from avae_jax.training.api import fit_config
    from avae_jax.training.setup import load_data

    words = (argument[2:].split("=")[0] for argument in arguments if argument.startswith("--"))
    given = {word.removeprefix("no-").replace("-", "_") for word in words}
    for name in ("dataset", "data_path"):
        if name in given:
            raise ConfigError(
                f"--{name.replace('_', '-')} must not be given beside {arguments[0]}, which names "
                "the images: leave it out"
            )
    # Refuse what cannot be run before the images are read.
    check_config(config)
    check_folder(run_dir, name="run_dir")
    dataset = load_data(config)
    mesh = make_mesh()
    config, notes = fit_config(config, dataset, given=given, num_devices=mesh.size, run_dir=run_dir)
    for note in notes:
        print(f"chosen for {config.experiment}: {note}", file=sys.stderr)
    return config, {"dataset": dataset}


def _evaluate(wanted: _Evaluate) -> int:
    if len({path.resolve() for path in wanted.runs}) < len(wanted.runs):
        raise ConfigError("runs: a run is named twice")
    names = [path.resolve().name for path in wanted.runs]
    if wanted.output is not None and len(set(names)) < len(names):
        raise ConfigError(
            f"runs: two folders have one name ({', '.join(names)}), and with --output each run "
            "needs its own; leave --output out or rename one"
        )
    _quiet()
    from avae_jax.evaluation import evaluate_run
    from avae_jax.evaluation.parts import forget_parts
    from avae_jax.evaluation.show import print_comparison, print_evaluation

    # All of them are read before the first is worked on.
    runs = [_load(wanted, path) for path in wanted.runs]
    several = len(runs) > 1
    summaries, folders = [], []
    for run in runs:
        output = wanted.output
        if several:
            output = None if output is None else output / run.path.name
        summaries.append(
            evaluate_run(
                run,
                protocol=wanted.protocol,
                num_images=wanted.num_images,
                num_samples=wanted.num_samples,
                seed=wanted.seed,
                inception_weights=wanted.inception_weights,
                classifier=wanted.classifier,
                iwae_samples=wanted.iwae_samples,
                factors=wanted.factors,
                output=output,
                keep_parts=several,
                say=_say,
            )
        )
        folder = output or run.path / "evaluation"
        folders.append(folder)
        print_evaluation(summaries[-1], folder / "report.html", folder / "summary.json")
    if several:
        print_comparison(summaries, folders, wanted.output or Path("evaluation"))
        for folder in folders:
            forget_parts(folder)
    return 0


def _compare(arguments: list[str]) -> int:
    operands = COMMANDS["compare"].operands
    wanted, fields = read_with_fields(
        _Compare, _compared_parts(), "compare", arguments, operands=operands
    )
    from avae_jax.comparison.plan import SUFFIX, make_plan, read_plan, read_tuned

    plans = [name for name in wanted.experiments if name.endswith(SUFFIX)]
    if plans:
        given = {"--methods": wanted.methods, "--seeds": wanted.seeds,
                 "--reference": wanted.reference, "--tune": wanted.tune, "--judge": wanted.judge,
                 **fields}  # fmt: skip
        named = [name for name, value in given.items() if value not in ((), None)]
        named += [name for name in wanted.experiments if name not in plans[:1]]
        if named:
            raise ConfigError(
                f"{named[0]} must not be given beside {plans[0]}, which is a whole plan: write it "
                "into the file"
            )
        plan = read_plan(Path(plans[0]))
    else:
        tune, judge = read_tuned(wanted.tune), wanted.judge or JUDGES[0]
        plan = make_plan(
            wanted.experiments, wanted.methods, wanted.seeds, fields, wanted.reference, tune, judge
        )
    _quiet()
    from avae_jax.comparison.api import default_folder, run_plan
    from avae_jax.comparison.cells import RefusedError
    from avae_jax.comparison.report import PAGE_FILE, TABLE_FILE, terminal_text
    from avae_jax.comparison.runner import Evaluation, Stopped

    folder = wanted.output or default_folder(plan)
    names = [field.name for field in dataclasses.fields(Evaluation)]
    evaluation = Evaluation(**{name: getattr(wanted, name) for name in names})
    try:
        results = run_plan(plan, only=wanted.only, output=folder, evaluation=evaluation)
    except RefusedError as refused:
        for line in refused.lines:
            print(f"avae compare: error: {line}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        command = shlex.join(["avae", "compare", *arguments])
        print(
            f"\navae: stopped at {stopped}, saved in {folder}; go on with: {command}",
            file=sys.stderr,
        )
        return 130
    print(terminal_text(results))
    places = f"{folder / PAGE_FILE}, {folder / TABLE_FILE}"
    print(f"{time.monotonic() - _START:.0f} s in all; look at {places}")
    tuned = [entry for own in results["tuning"].values() for entry in own.values()]
    return int(any(one["status"] == "failed" for one in (*results["cells"], *tuned)))


def _compared_parts() -> list[type]:
    """Return the classes whose fields can be given to a comparison; its seeds are its own."""
    parts = [get_type_hints(Config)[part] for part in SECTIONS if part != "method"]
    return [*parts, *METHODS.values()]


def _tunable() -> tuple[str, ...]:
    """Return the numbers that methods have of their own, as `--tune` takes them."""
    return tuple(
        f"{method}.{it.field}"
        for method, kind in METHODS.items()
        for it in arguments_of(kind)
        if float in it.alternatives
    )


def _classifier(wanted: _Classifier) -> int:
    _quiet()
    from avae_jax import data
    from avae_jax.evaluation.classify import train_on

    output = wanted.output or Path(f"lenet-{wanted.dataset}.npz")
    if output.suffix != ".npz":
        raise ConfigError(f"output={output}: the name must end in .npz")
    (output,) = _outputs(dataclasses.replace(wanted, output=output), ".npz")
    dataset = data.load_dataset(
        wanted.dataset, path=wanted.data_path, data_dir=wanted.data_dir, seed=wanted.seed
    )
    net = train_on(dataset, num_epochs=wanted.num_epochs, seed=wanted.seed, say=_say)
    net.save(output)
    print(f"{net.name}: test accuracy {100 * net.test_accuracy:.2f}%, {net.hash[:16]}: {output}")
    return 0


def _sample(wanted: _Sample) -> int:
    _quiet()

    import avae_jax as av
    from avae_jax import figures

    trained = av.load_run(wanted.run)
    array, picture = _outputs(wanted, ".npy", ".png")
    scale = trained.method.sampled_by if wanted.scale is None else wanted.scale
    prior = trained.prior(scale)
    x = trained.sample(wanted.num_samples, scale=scale, seed=wanted.seed)
    _save_array(array, x)
    figures.save(figures.make_image_grid(x, value_range=trained.method.value_range), picture)
    drawn = f"codes from {prior.describe()}"
    if isinstance(scale, str):
        drawn += f", the {scale.replace('_', ' ')} scale"
    # A run that is not finished has not measured its codes.
    with contextlib.suppress(ValueError):
        width = prior.std() / trained.prior("covariance").std()
        drawn += f", {width:.2f} times as wide as those of the training images"
    print(f"{len(x)} samples: {array}, {picture}\n{drawn}")
    return 0


def _encode(wanted: _Encode) -> int:
    _quiet()

    trained = _load(wanted, wanted.run)
    (array,) = _outputs(wanted, ".npy")
    images, files = _images_for(trained, wanted.images)
    table = _table_for(wanted, files)
    z = trained.encode(images)
    written = _write_rows(array, z, table, files)
    print(f"{z.shape[0]} codes of {z.shape[1]} dimensions: {written}")
    return 0


def _reconstruct(wanted: _Reconstruct) -> int:
    _quiet()
    import numpy as np

    from avae_jax import figures

    trained = _load(wanted, wanted.run)
    array, picture = _outputs(wanted, ".npy", ".png")
    images, files = _images_for(trained, wanted.images)
    table = _table_for(wanted, files)
    x_recon = trained.reconstruct(images)
    written = _write_rows(array, x_recon, table, files)
    x = np.asarray(trained.method.to_float(trained.as_trained(images)))
    figure = figures.make_reconstructions(x, x_recon, value_range=trained.method.value_range)
    figures.save(figure, picture)
    print(f"{len(x_recon)} reconstructions: {written}, {picture}")
    return 0


def _load(wanted: _RunData, path: Path) -> Any:
    """Load a run, whose images may have moved."""
    import avae_jax as av

    return av.load_run(path, data_path=wanted.data_path, data_dir=wanted.data_dir)


_TABLE_HEAD = ("row", "file")


def _table_for(wanted: Any, files: Sequence[str] | None) -> Path:
    """Return where names of files go, after checking that they can where there are any."""
    if files is not None:
        return _outputs(wanted, ".csv")[0]
    return _outputs(dataclasses.replace(wanted, overwrite=True), ".csv")[0]


def _write_rows(array: Path, rows: Any, table: Path, files: Sequence[str] | None) -> str:
    """Write an array and, where its rows are of files, their names; return what was written."""
    import csv

    _save_array(array, rows)
    if files is None:
        # The names of rows that are no more.
        if table.is_file() and table.read_bytes().startswith(",".join(_TABLE_HEAD).encode()):
            table.unlink()
        return str(array)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_TABLE_HEAD, *enumerate(files)])
    # A file's name need not be text.
    write_atomically(table, text.getvalue().encode("utf-8", "surrogateescape"))
    return f"{array}, {table}"


def _save_array(path: Path, array: Any) -> None:
    import numpy as np

    with written_whole(path) as file:
        np.save(file, array)


def _images_for(trained, name: str) -> tuple[Any, Sequence[str] | None]:
    """Load one of the run's own splits, or a user's images, and the names of their files."""
    import numpy as np

    from avae_jax import data

    if name in ("train", "validation", "test"):
        from avae_jax.training.run import run_data

        dataset = run_data(trained)
        rows = getattr(dataset.splits, name)
        names = dataset.files
        files = None if names is None else [str(names[row]) for row in rows]
        return np.asarray(dataset.images[rows]), files
    if not user_path(name).exists():
        files = "a folder of images or a .npy/.npz file that is there"
        splits = ("train", "validation", "test")
        raise ConfigError(refusal("DATA", name, choices=splits, kinds=[files]))
    return data.read_images(name)


def _bandwidth(wanted: _Bandwidth) -> int:
    from avae_jax.density import find_bandwidth
    from avae_jax.training.table import print_summary

    start = time.monotonic()
    found = find_bandwidth(
        wanted.latent_dim,
        wanted.num_centers,
        seed=wanted.seed,
        num_queries=wanted.num_queries,
        num_trials=wanted.num_trials,
        cache=wanted.cache,
    )
    print_summary(
        {
            "h_opt (for codes of unit variance)": f"{found.h_opt:.4f} +- {found.stderr:.4f}",
            "h_corr (to train with)": f"{found.h_corr:.4f}",
            "prior scale sqrt(1 - h_corr^2)": f"{found.prior_scale:.4f}",
            "null KL (nats)": f"{found.null_kl:.3f}",
            "passes": found.num_iterations,
            "seconds": time.monotonic() - start,
        }
    )
    return 0


def _prepare(wanted: _Prepare) -> int:
    from avae_jax.data import prepare_dataset

    prepare_dataset(wanted.dataset, wanted.data_dir)
    print(f"{wanted.dataset} is prepared")
    return 0


def _bench(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in BENCHMARKS:
        if name in ("-h", "--help"):
            print("usage: avae bench kernel [options]; avae bench kernel --help lists them")
            return 0
        problem = f"no benchmark is named {name!r}" if name else "no benchmark given"
        raise ConfigError(f"{problem}: give {', '.join(BENCHMARKS)}")
    folder = importlib.resources.files("avae_jax.benchmarks")
    # A process of its own: the scripts import one another by their bare names.
    return subprocess.call([sys.executable, str(folder / BENCHMARKS[name]), *arguments[1:]])


def _completion(wanted: _Completion) -> int:
    from avae_jax.completion import Words, completion_script

    names, words = tuple(experiment_names()), {}
    for name, command in COMMANDS.items():
        if command.arguments is not None:
            arguments = arguments_of(command.arguments)
            operands = tuple(it.choices or it.names for it in arguments if it.is_positional)
        elif name == "bench":
            arguments, operands = [], (tuple(BENCHMARKS),)
        elif name == "compare":
            arguments = [it for part in (_Compare, *_compared_parts()) for it in arguments_of(part)]
            operands = (names,)
        else:
            # The fields of every method; those that have no effect are refused by name.
            parts = [*(get_type_hints(Config)[part] for part in SECTIONS), _Run, *METHODS.values()]
            arguments = [it for part in parts for it in arguments_of(part)]
            operands = (names,)
        options = options_of(arguments)
        if name == "compare":
            options["--tune"] = options["--tune"]._replace(values=_tunable())
        words[name] = Words(command.does, operands, options)
    print(completion_script(wanted.shell, "avae", words), end="")
    return 0


def _outputs(wanted: Any, *suffixes: str) -> list[Path]:
    """Return the files to write, after checking that they can be and that nothing is lost."""
    output = wanted.output
    if not output.parent.is_dir():
        raise ConfigError(f"output={output}: there is no folder {output.parent}")
    check_folder(output.parent, name="output")
    stem = output.with_suffix("") if output.suffix in (".npy", ".png", *suffixes) else output
    files = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    for file in files:
        if file.exists() and not wanted.overwrite:
            raise ConfigError(f"output={file} exists: choose another --output, or add --overwrite")
    return files


_START = time.monotonic()


def _say(line: str) -> None:
    """Print a line of progress, with the seconds since the command began."""
    print(f"[{time.monotonic() - _START:4.0f} s] {line}", file=sys.stderr, flush=True)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"avae: warning: {message}", file=sys.stderr)


def _quiet() -> None:
    """Keep the chatter of libraries off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)
    for name in ("jax", "tensorboardX"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A user reads what is wrong, not where in the code it was noticed.
    warnings.showwarning = _show_warning


@dataclasses.dataclass(frozen=True)
class Command:
    """One of the commands.

    Attributes:
      function: does it with the arguments, and returns the exit code.
      arguments: the class they are read into; None hands over the words as they are.
      operands: what must be given.
      does: what it does, for the list of commands.
    """

    function: Callable[[Any], int]
    arguments: type | None
    operands: str
    does: str


COMMANDS = {
    "train": Command(_train, None, "EXPERIMENT|PATH", "train a model, or go on, and report on it"),
    "check": Command(
        _check, None, "EXPERIMENT|PATH", "look for trouble before training, and time a step"
    ),
    "evaluate": Command(
        _evaluate, _Evaluate, "RUN ...", "judge trained models: latent space, samples, one report"
    ),
    "compare": Command(
        _compare, None, "EXPERIMENT ...", "train several methods alike, and compare them"
    ),
    "classifier": Command(
        _classifier,
        _Classifier,
        "DATASET",
        "train a classifier whose features samples are judged in",
    ),
    "sample": Command(_sample, _Sample, "RUN", "draw images from a trained model"),
    "encode": Command(_encode, _Encode, "RUN DATA", "encode images to codes"),
    "reconstruct": Command(_reconstruct, _Reconstruct, "RUN DATA", "encode and decode images"),
    "bandwidth": Command(
        _bandwidth, _Bandwidth, "DIM CENTERS", "find the kernel bandwidth for a latent space"
    ),
    "prepare": Command(
        _prepare, _Prepare, "DATASET", "download and prepare a data set (needs the `prepare` extra)"
    ),
    "bench": Command(
        _bench, None, "kernel", "time the kernel beside this machine's limits and other libraries"
    ),
    "completion": Command(
        _completion, _Completion, "SHELL", "print the tab completion of bash, zsh or fish"
    ),
}
"""The commands by name, in the order in which they are listed."""
