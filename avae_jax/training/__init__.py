"""The training loop and what it needs: configuration, state, step, checkpoints, writers.

An arrow points to what is called::

    config.py --------> setup.py          data, method and devices, checked to fit together
                          |
    loop.py ----------> trainer.py        compiled functions and the state they move; a `Host`
     |  one for every     |   |
     |  method            |   +--> feed.py       which images a step sees, and how they arrive
     |                    +------> step.py       the step, encoding, evaluation: pure, compiled
     |                    +------> state.py      what is carried, and the optimizer
     |                               means.py    means of an epoch over its good steps
     +--> checkpoint.py   states on disk, checked when they are read
     +--> run_folder.py   what a folder must hold before training, and whether it is this run
     +--> progress.py     where a user looks; writers.py: where numbers go; terms.py: their names
     +--> preflight.py    what is known, and what a step costs, before training

    api.py                `av.train`, in one call from Python
    run.py                a trained model, read back from its folder
    table.py              a summary on the terminal
"""
