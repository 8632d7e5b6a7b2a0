"""Methods compared fairly: one plan, one run per cell, one table.

::

    plan.py          experiments x methods x seeds x fields, from words or a file; its hash
      |
    cells.py         a plan's cells: each a whole configuration, checked before any is trained
      |
    runner.py        trains and evaluates cell after cell; goes on where it was stopped
      |   +-- record.py     what is known of a cell, beside its run folder
      |   +-- progress.py   a line a cell, and the time left over the whole table
      |   +-- cost.py       parameters, FLOP and seconds of a step beside the plain autoencoder's
      |   +-- tuning.py     values of fields, chosen on validation images by trials
      |
    numbers.py       which numbers of an evaluation are compared, with their nulls
      |
    statistics.py    mean and spread over seeds, paired differences, exact p, Holm
      |
    results.py       all of it as JSON values
      |
    report.py        as a Markdown table, a figure and one HTML page

    api.py           `av.compare`: from the plan to the report
"""
