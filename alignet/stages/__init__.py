"""The command lines: `python -m alignet.stages.<stage>`, one file for each; it reads inputs, calls a room, writes.

In: overrides of conf/; or a node's section and inputs, from the pipeline. Out: one artifact, or what is printed. The
docstring of each file says what it reads and writes, its roles and its cost; how it is computed is in the rooms.
Open first: pipeline.py (all of them in order), then distill.py (one of them).
"""
