"""Checks a configuration before hours are spent on it: what is wrong, what it will take, what it stands on.

In: a whole configuration, like the pipeline's; the data and models that are on this machine. Out: Findings (ok, warning
or fault, and what to do), estimates of time, memory and disk. A check only reads, but for the remembered checksums of
outside files, and checks do not depend on each other, so one run lists every fault. Open first: sources.py (the data
that the graph needs), then config_checks.py (settings that cannot work together).
"""
