"""Checks a configuration before hours are spent on it: what is wrong, what it will take, what it stands on.

Called by the stage `doctor`. Like the pipeline, and unlike the science, it reads a whole configuration:

findings.py           one line of a check: ok, warning or fault, and what to do about a fault
sources.py            the sets of data that the graph needs: where they are, and what is in them
files.py              are they there, and can they be read
evaluations.py        files that only their evaluation can read, opened as it does
choices.py            human triplets: convention, range, overlap; objects and their images
models.py             weights, features against the library's own, device and precision
documented.py         features as each library documents them, which models.py compares with
config_checks.py      settings that cannot work together, or hardly
machine.py            threads, disk and memory against what is needed
measure.py            short measurements of the real code on this machine; measure_networks.py: of images and networks
timing.py, memory.py  seconds of a piece of work, and by how much memory grows meanwhile
estimates.py          from measurements to time, memory and disk of each node; estimate_results.py: of evaluations,
                      exports and the report; estimate_base.py: what both read off data and measurements
origins.py            licences, and which values are the papers' and which are not

A check only reads: nothing is written but the remembered checksums of outside files (`seen` in the store), as
`status` writes them. Checks do not depend on each other, so one run lists every fault.
"""
