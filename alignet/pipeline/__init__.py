"""From a command line to artifacts: the graph of nodes, what of it is missing, and its making in order.

In: overrides of conf/, a store. Out: a validated configuration, nodes as pure data, the state of each, new artifacts,
one clear message for an error. A stage is given a StageRun (stage_run.py) and reads what others wrote by payloads.py.
Open first: graph/ (what depends on what), then states.py and runner.py; cli.py for command lines.
"""
