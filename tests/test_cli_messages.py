"""What the command line says to input it cannot use: one line, exit code 2, what to do instead."""

import io
import sys

import pytest

from avae_jax import cli

RUN = "EMPTY/run"  # There is no such folder.

CASES = """
tarin digits                    | unknown command 'tarin'; did you mean 'train'?
Train digits                    | unknown command 'Train'; did you mean 'train'?
digits                          | unknown command 'digits'; did you mean 'avae train digits'?
--hlep                          | unknown command '--hlep'; did you mean '--help'?
zzz                             | unknown command 'zzz'; known: train, check, evaluate
train                           | no experiment given: name one of celeb_a, cifar10, digits
train --latent-dim 3 digits     | must come first, got --latent-dim: write avae train digits
train digit                     | unknown experiment 'digit'; did you mean 'digits'?
train EMPTY/mine.py             | does not exist: give the path of a Python file
train digits extra              | extra is no argument of avae train digits: leave it out
train digits mnist more         | mnist, more are no arguments of avae train digits: leave them out
train digits latent_dim 3       | are no arguments of avae train digits: write --latent-dim
train digits --latent-dmi 3     | unknown field --latent-dmi; did you mean '--latent-dim'?
train digits --no_such 3        | unknown field --no_such; avae train digits --help lists them
train digits --latent-dim x     | --latent-dim must be a whole number, got 'x': give one
train digits --latent-dim 2.5   | --latent-dim must be a whole number, got '2.5': give one
train digits --latent-dim 0     | latent_dim=0: give at least 1
train digits --latent-dim 2 --latent_dim 3| --latent-dim must be given once, got 2 and 3: leave one
train digits --width wide       | --width must be a number, got 'wide': give one
train digits --width            | --width must have a value, got none: give one after it
train digits --norm batc        | --norm must be one of batch, group, none, got 'batc': did you
train digits --tail foo         | --tail must be one of none, official, got 'foo': choose one
train digits --weight foo       | --weight must be nats, log10 or a number, got 'foo': choose one
train digits --weight nat       | --weight must be nats, log10 or a number, got 'nat': did you mean
train digits --prior gausian    | got 'gausian': did you mean 'gaussian'?
train digits --max-cdf 2        | max_cdf=2.0
train digits --no-width         | --no-width is no field: --width has a value
train digits --method           | --method must be one of avae, gens, wae
train digits --method gan       | unknown method 'gan'; known: avae, gens, wae
train digits --method=vea       | unknown method 'vea'; did you mean 'vae'?
train digits --method=vae --x 3 | unknown field --x; avae train digits --method vae --help lists
train digits --method vae --tail none| --tail has no effect with this method: leave it out, or use
train digits --method beta_vae --beta 0| beta=0.0: give a number > 0
train digits --labeled          | use --method vae or beta_vae
train digits --no-labeled       | no effect with this method: leave it out, or use --method
train digits --method vae --labeled=yes| --labeled must have no value, got 'yes': leave it out
train digits --dataset mnits    | unknown dataset 'mnits'; did you mean 'mnist'?
train digits --dataset folder   | path
train digits --architecture mnits| got 'mnits'; did you mean 'mnist'?
train digits --architecture mnist| does not suit images of shape
train digits --num-centers 5000 | larger than the training split of 1259
train digits --encoder no_such_module:Encoder| no_such_module
train digits --encoder EMPTY/nets.py:Encoder| nets.py' does not exist: give the path of a Python
check                           | no experiment given
check digit                     | unknown experiment 'digit'; did you mean 'digits'?
check digits --batch-size       | --batch-size must have a value, got none
check digits extra              | extra is no argument of avae check digits: leave it out
evaluate                        | RUN must be given, got none: write avae evaluate RUN ...
evaluate RUN                    | run is not a run folder: there is no such folder
evaluate RUN --protocol papper  | must be one of standard, paper, got 'papper': did you mean
evaluate RUN --factors mine     | must be one of none, scores, dci, got 'mine': choose one of these
evaluate RUN --num-imges 3      | unknown field --num-imges; did you mean '--num-images'?
evaluate RUN --num-images       | --num-images must have a value, got none: give one after it
evaluate RUN --seed 1 --seed 2  | --seed must be given once, got 1 and 2: leave one of them out
compare                         | EXPERIMENT must be given, got none: write avae compare EXPERIMENT
compare digts                   | unknown experiment 'digts'; did you mean 'digits'?
compare digits --methods vea    | unknown method 'vea'; did you mean 'vae'?
compare digits --seeds 1 x      | seeds
compare digits --seeds 1 1      | seeds must each be given once, got 1, 1: leave one out
compare digits --seed 1         | seed must be given as seeds, got a field: leave it out
compare digits --latent-dmi 3   | unknown field --latent-dmi; did you mean '--latent-dim'?
compare digits --latent-dim x   | --latent-dim must be a whole number, got 'x': give one
compare digits --methods vae --tail none| fields must be of one of the methods compared, got 'tail'
compare digits --reference aev  | reference must be one of the methods compared, got 'aev'; did you
compare digits --methods ae --only vae| only must fit a cell, got vae: name one such as digits/ae/
compare digits --tune 1 4       | --tune must begin with METHOD.FIELD, got '1': write it, and the
compare digits --tune vae.beat 1 2| tune must name fields of vae, got 'beat'
compare digits --tune vea.beta 1 2| tune must name methods compared, got 'vea'; did you mean 'vae'?
compare digits --tune ard_vae.beta 1| tune must try several values, got 1 for ard_vae: give more
compare digits --tune avae.weight nats nat| digits/avae/weight=nat: weight must be nats, log10 or
compare digits --judge fid      | --judge must be one of fd, mse, moment_kl, kde_kl, got 'fid': did
compare digits --quick --tune ard_vae.beta 1 2| judge must be measured, got fd with quick: choose
compare EMPTY/plan.toml         | plan must be a file that is there, got
compare EMPTY/plan.toml --seeds 1| --seeds must not be given beside
classifier                      | DATASET must be given, got none: write avae classifier DATASET
classifier digtis               | unknown dataset 'digtis'; did you mean 'digits'?
classifier digits mnist         | mnist is no argument of avae classifier: leave it out
classifier digits --num-epochs x| --num-epochs must be a whole number, got 'x': give one
classifier digits --output net.pkl| must end in .npz
classifier digits --output EMPTY/no/net.npz| there is no folder
sample                          | RUN must be given, got none: write avae sample RUN
sample RUN                      | run is not a run folder: there is no such folder
sample RUN other                | other is no argument of avae sample: leave it out
sample RUN --num-samples 2.5    | --num-samples must be a whole number, got '2.5': give one
sample RUN --num-sample 3       | unknown field --num-sample; did you mean '--num-samples'?
sample RUN --overwrite yes      | yes is no argument of avae sample: leave it out
encode                          | RUN must be given, got none: write avae encode RUN DATA
encode RUN                      | DATA must be given, got none: write avae encode RUN DATA
encode RUN test                 | run is not a run folder: there is no such folder
encode RUN test extra           | extra is no argument of avae encode: leave it out
encode RUN test --output        | --output must have a value, got none: give one after it
reconstruct RUN                 | DATA must be given, got none: write avae reconstruct RUN DATA
reconstruct RUN test            | run is not a run folder: there is no such folder
bandwidth                       | DIM must be given, got none: write avae bandwidth DIM CENTERS
bandwidth 4                     | CENTERS must be given, got none: write avae bandwidth DIM CENTERS
bandwidth x 3                   | DIM must be a whole number, got 'x': give one
bandwidth 4 2.5                 | CENTERS must be a whole number, got '2.5': give one
bandwidth 8 100 3               | 3 is no argument of avae bandwidth: leave it out
bandwidth -4 100                | latent_dim must be an integer of at least 1, got -4
bandwidth 4 1                   | num_centers
bandwidth 4 100 --num-queries 0 | num_queries
bandwidth 4 100 --cache --no-cache| --cache must be given once, got --cache and --no-cache: leave
bandwidth 4 100 --no-cach       | unknown field --no-cach; did you mean '--cache'?
prepare                         | DATASET must be given, got none: write avae prepare DATASET
prepare mnits                   | unknown dataset 'mnits'; did you mean 'mnist'?
prepare mnist --data-dirr x     | unknown field --data-dirr; did you mean '--data-dir'?
bench                           | no benchmark given: give kernel
bench x                         | no benchmark is named 'x': give kernel
completion                      | SHELL must be given, got none: write avae completion SHELL
completion zhs                  | SHELL must be one of bash, zsh, fish, got 'zhs': did you mean
"""
TABLE = [tuple(part.strip() for part in line.split("|")) for line in CASES.strip().splitlines()]


@pytest.mark.parametrize(("line", "message"), TABLE)
def test_bad_input_is_one_line(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = line.replace("RUN", RUN).replace("EMPTY", str(tmp_path)).split()
    if words[:2] == ["train", "digits"] and words[2:3] != ["mnist"]:
        # What the eight devices of the tests divide.
        words += ["--batch-size", "96"]
    assert cli.run(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert message in said.err, said.err
    assert said.err.startswith("avae")
    assert not set("│╭╮╰╯─") & set(said.err)
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_in_the_table():
    assert {line.split()[0] for line, _ in TABLE} >= set(cli.COMMANDS)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("columns", ["40", "200"])
def test_a_refusal_reads_alike_on_every_terminal(encoding, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.run(["train", "digits", "--latent-dim", "x"]) == 2
    err.flush()
    message = err.buffer.getvalue().decode(encoding)
    assert message == "avae train: error: --latent-dim must be a whole number, got 'x': give one\n"
