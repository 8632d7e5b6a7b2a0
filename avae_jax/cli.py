"""The command line: `avae train | check | sample | encode | reconstruct | bandwidth | ...`.

An error is one line on standard error and exit code 2; an interrupted run exits with 130.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib.resources
import inspect
import io
import itertools
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from avae_jax.methods import DEFAULT, METHODS
from avae_jax.text import nearest
from avae_jax.training.config import (
    SECTIONS,
    Config,
    ConfigError,
    experiment_names,
    find_method,
    load_experiment,
    own_images,
    replace_fields,
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


@dataclasses.dataclass(frozen=True)
class _Evaluate:
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
    scale: str = "claimed"
    """Distribution of the codes. claimed: the prior that the method aims them at; measured:
    N(mean, s^2 I) with their own mean and s; covariance: a Gaussian with their mean and covariance;
    a number: N(0, s^2 I) with that s; or another name that the run's method knows."""
    seed: int = 0
    """Seed of the draw."""
    output: Path = Path("samples")
    """Where to write: OUTPUT.npy (float32 images) and OUTPUT.png (a grid)."""
    overwrite: bool = False
    """Replace files that are there."""


@dataclasses.dataclass(frozen=True)
class _Encode:
    """Encode images with a trained model."""

    run: Positional[Path]
    """The run folder."""
    images: Positional[str]
    """train, validation or test (the run's own splits), a folder of images, or a .npy/.npz file."""
    output: Path = Path("codes.npy")
    """Where to write the codes, float32 [n, latent_dim]."""
    overwrite: bool = False
    """Replace a file that is there."""


@dataclasses.dataclass(frozen=True)
class _Reconstruct:
    """Encode and decode images with a trained model."""

    run: Positional[Path]
    """The run folder."""
    images: Positional[str]
    """train, validation or test (the run's own splits), a folder of images, or a .npy/.npz file."""
    output: Path = Path("reconstructions")
    """Where to write: OUTPUT.npy (float32 images) and OUTPUT.png (the first 48 beside theirs)."""
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

    dataset: Positional[str]
    """What to prepare."""
    data_dir: str | None = None
    """Where to put it; TFDS_DATA_DIR, then tfds's own default, when not given."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 when done, 2 on bad input, 1 on failure, 130 when interrupted."""
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
    try:
        if name not in COMMANDS:
            raise ConfigError(f"unknown command {name!r}{nearest(name, COMMANDS)}")
        command = COMMANDS[name]
        if command.arguments is None:
            return command.function(rest)
        return command.function(_parse(command.arguments, name, rest))
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


def _parse(kind: type, command: str, arguments: list[str]) -> Any:
    """Read the arguments of a command into an object of its class."""
    parsed = _read(_described(kind), command, arguments)
    return kind(**vars(parsed))


def _read(kind: type, command: str, arguments: list[str]) -> Any:
    """Read arguments; refuse those that cannot be read in one line."""
    _check_field_names(kind, command, arguments)
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(kind, prog=f"avae {command}", args=arguments)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise ConfigError(_unboxed(boxed.getvalue(), command)) from None


def _unboxed(text: str, command: str) -> str:
    """Return the message of one of tyro's boxed errors as one line."""
    # The box is drawn with dashes where the terminal has no other lines; its title says nothing.
    lines = [line.strip("│╭╮╰╯─- ") for line in text.splitlines()]
    kept = []
    for line in lines[1:]:
        if line.startswith(("For full helptext", "Argument helptext")) or "--help" in line:
            break
        kept.append(line)
    message = " ".join(filter(None, kept)) or "the arguments cannot be read"
    quoted = re.findall(r"'([^']*)'", message)
    if message.startswith("Missing from"):
        operands = COMMANDS[command.split()[0]].operands
        return f"something is missing: give avae {command} {operands}"
    if message.startswith("Missing value"):
        return f"{quoted[0]} must have a value, got none: give one after it"
    if message.startswith("Unrecognized options: "):
        return f"{message.split(': ', 1)[1]} is no argument of avae {command}: leave it out"
    if message.startswith("invalid choice"):
        given, name, *choices = quoted
        return f"{name} must be one of {', '.join(choices)}, got {given!r}: choose one of these"
    found = re.match(r"Error parsing ([\w-]+): (.*)", message)
    if found is None:
        return message
    name, problem = found.groups()
    wanted = "a whole number" if "int()" in problem else "a number"
    if "type matching" in problem:
        # A choice of names, or a number.
        (kinds,) = re.findall(r"type matching (\S+)", problem)
        wanted = kinds.replace("{", "").replace("}", "").replace(",", ", ").replace("|", " or ")
        wanted = wanted.replace("FLOAT", "a number").replace("INT", "a whole number")
        quoted = re.findall(r"instantiated from \['(.*?)'\]", problem)
    return f"{name} must be {wanted}, got {quoted[-1]!r}: give one"


def _described(kind: type, values: Any = None) -> type:
    """Return a class of the same arguments, described as a user reads them.

    Args:
      kind: a data class whose fields have docstrings.
      values: an instance whose values are the defaults; the class's own where None.
    """
    hints, texts = get_type_hints(kind, include_extras=True), _field_texts(kind)
    fields: list[Any] = []
    for field in dataclasses.fields(kind):
        hint, text = hints[field.name], texts.get(field.name, "")
        names = _names_for(kind, field.name)
        if names:
            text = f"{text.removesuffix('.')}: {', '.join(names)}."
        default = field.default if values is None else getattr(values, field.name)
        options: dict[str, Any] = {"help": text}
        if get_origin(hint) is Annotated:
            # A positional one.
            options["metavar"] = field.name.upper()
        if type(None) in get_args(hint):
            # That it may be left out goes without saying.
            options["metavar"] = "|".join(map(_placeholder, _alternatives(hint)))
            if default is None:
                options["help_behavior_hint"] = ""
        entry = (field.name, Annotated[hint, tyro.conf.arg(**options)])
        has_default = default is not dataclasses.MISSING
        fields.append((*entry, dataclasses.field(default=default)) if has_default else entry)
    described = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True)
    described.__doc__ = kind.__doc__
    return described


def _alternatives(hint: Any) -> list[Any]:
    return [option for option in get_args(hint) if option is not type(None)]


def _placeholder(hint: Any) -> str:
    """Return what stands for a value in a list of arguments."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    return hint.__name__.upper()


@functools.cache
def _field_texts(kind: type) -> dict[str, str]:
    """Return the docstrings of a data class's fields, its bases' among them, each as one line."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for pair in zip(body, body[1:], strict=False):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts[name] = " ".join(text.split())
    return texts


def _names_for(kind: type, field: str) -> Collection[str]:
    """Return the names that a field takes, where they are those of a table."""
    if field == "dataset":
        from avae_jax import data

        return data.PREPARED if kind is _Prepare else data.DATASETS
    if field == "architecture":
        from avae_jax import models

        return models.ARCHITECTURES
    return ()


def _check_field_names(kind, command: str, arguments: list[str]) -> None:
    """Refuse a misspelt field in one line, naming the nearest."""
    fields: dict[str, None] = {}
    for field in dataclasses.fields(kind):
        # The fields of a part are arguments, not the part.
        part = get_args(field.type)[0] if get_origin(field.type) is Annotated else None
        names = [field.name]
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            names = [own.name for own in dataclasses.fields(part)]
        fields |= {name.replace("_", "-"): None for name in names}
    fields |= {"help": None}
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0].replace("_", "-")
        if argument.startswith("--") and name.removeprefix("no-") not in fields:
            _refuse_field(name, fields, command)


def _refuse_field(name: str, known: Collection[str], command: str) -> None:
    """Say that a field is unknown, or of which other methods it is."""
    own = name.removeprefix("no-").replace("-", "_")
    others = [
        method
        for method, kind in METHODS.items()
        if own in {field.name for field in dataclasses.fields(kind)}
    ]
    if others and "method" in known:
        raise ConfigError(
            f"--{name} has no effect with this method: leave it out, or use --method "
            f"{' or '.join(others)}"
        )
    hint = nearest(name, known)
    if "did you mean" not in hint:
        # There are too many to read in one line.
        hint = f"; avae {command} --help lists them"
    raise ConfigError(f"unknown field --{name}{hint}")


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
    wants_help = bool({"-h", "--help"} & {*arguments})
    if arguments and not arguments[0].startswith("-"):
        experiment, rest = arguments[0], arguments[1:]
        default = load_experiment(experiment)
    elif wants_help:
        experiment, rest, default = "EXPERIMENT", arguments, Config()
    else:
        names = ", ".join(experiment_names())
        raise ConfigError(f"no experiment given: name one of {names}, or a .py file")
    experiment_method = default.method.name
    name = _method_of(rest, experiment_method)
    find_method(name)
    default = replace_fields(default, method=name)
    # One flat list of arguments: every part's own fields, those of the method among them.
    parts = {"run": _Run(method=name, experiment=default.experiment)}
    parts |= {section: getattr(default, section) for section in SECTIONS}
    described = {part: _described(type(values), values) for part, values in parts.items()}
    fields: list[Any] = [
        (part, OmitArgPrefixes[kind], dataclasses.field(default=kind()))
        for part, kind in described.items()
    ]
    kind = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    kind.__doc__ = "Fields of the experiment can be replaced by name."
    chosen = "" if name == experiment_method else f" --method {name}"
    parsed = _read(kind, f"{command} {experiment}{chosen}", rest)
    parts = {part: type(parts[part])(**vars(getattr(parsed, part))) for part in parts}
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
    dataset = load_data(config)
    mesh = make_mesh()
    config, notes = fit_config(config, dataset, given=given, num_devices=mesh.size, run_dir=run_dir)
    for note in notes:
        print(f"chosen for {config.experiment}: {note}", file=sys.stderr)
    return config, {"dataset": dataset}


def _evaluate(wanted: _Evaluate) -> int:
    if not wanted.runs:
        raise ConfigError("no run given: name one or more run folders")
    if len({path.resolve() for path in wanted.runs}) < len(wanted.runs):
        raise ConfigError("runs: a run is named twice")
    names = [path.resolve().name for path in wanted.runs]
    if wanted.output is not None and len(set(names)) < len(names):
        raise ConfigError(
            f"runs: two folders have one name ({', '.join(names)}), and with --output each run "
            "needs its own; leave --output out or rename one"
        )
    _quiet()
    import avae_jax as av
    from avae_jax.evaluation import evaluate_run
    from avae_jax.evaluation.show import print_comparison, print_evaluation

    # All of them are read before the first is worked on.
    runs = [av.load_run(path) for path in wanted.runs]
    several = len(runs) > 1
    summaries = []
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
                say=_say,
            )
        )
        folder = output or run.path / "evaluation"
        print_evaluation(summaries[-1], folder / "report.html", folder / "summary.json")
    if several:
        print_comparison(summaries, wanted.output or Path("evaluation"))
    return 0


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
    import numpy as np

    import avae_jax as av
    from avae_jax import figures

    trained = av.load_run(wanted.run)
    array, picture = _outputs(wanted, ".npy", ".png")
    x = trained.sample(wanted.num_samples, scale=_number_or_name(wanted.scale), seed=wanted.seed)
    np.save(array, x)
    figures.save(figures.make_image_grid(x, value_range=trained.method.value_range), picture)
    print(f"{len(x)} samples: {array}, {picture}")
    return 0


def _number_or_name(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _encode(wanted: _Encode) -> int:
    _quiet()
    import numpy as np

    import avae_jax as av

    trained = av.load_run(wanted.run)
    (array,) = _outputs(wanted, ".npy")
    z = trained.encode(_images_for(trained, wanted.images))
    np.save(array, z)
    print(f"{z.shape[0]} codes of {z.shape[1]} dimensions: {array}")
    return 0


def _reconstruct(wanted: _Reconstruct) -> int:
    _quiet()
    import numpy as np

    import avae_jax as av
    from avae_jax import figures

    trained = av.load_run(wanted.run)
    array, picture = _outputs(wanted, ".npy", ".png")
    images = _images_for(trained, wanted.images)
    x_recon = trained.reconstruct(images)
    np.save(array, x_recon)
    x = np.asarray(trained.method.to_float(images[:48]))
    figure = figures.make_reconstructions(x, x_recon[:48], value_range=trained.method.value_range)
    figures.save(figure, picture)
    print(f"{len(x_recon)} reconstructions: {array}, {picture}")
    return 0


def _images_for(trained, name: str) -> Any:
    """Load one of the run's own splits, or a user's images."""
    import numpy as np

    from avae_jax import data

    if name in ("train", "validation", "test"):
        from avae_jax.training.run import run_data

        dataset = run_data(trained)
        return np.asarray(dataset.images[getattr(dataset.splits, name)])
    if not Path(name).expanduser().exists():
        raise ConfigError(
            f"images={name}: name train, validation or test, a folder of images, or a .npy/.npz "
            "file"
        )
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


def _outputs(wanted: Any, *suffixes: str) -> list[Path]:
    """Return the files to write, after checking that they can be and that nothing is lost."""
    output = wanted.output
    if not output.parent.is_dir():
        raise ConfigError(f"output={output}: there is no folder {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise ConfigError(f"output={output}: no write permission in {output.parent}")
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


def _quiet() -> None:
    """Keep the chatter of libraries off the terminal."""
    import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)
    for name in ("jax", "tensorboardX"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
}
"""The commands by name, in the order in which they are listed."""
