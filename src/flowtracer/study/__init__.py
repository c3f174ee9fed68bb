"""Studies: strategies of credit under one recipe and several seeds, and what the difference between them is worth.

`matrix.py` reads what is to be run, `runner.py` runs what is missing, `results.py` keeps the curves and `logs.py` reads
those of runs made elsewhere. `differences.py` says what they show, by `statistics.py`; `tables.py` and `figures.py` how
it looks.
"""
