"""From a command line to artifacts: the graph of nodes, what of it is missing, and its making in order.

In: overrides of conf/, a store. Out: a validated configuration, nodes as pure data, the state of each, new artifacts,
one clear message for an error. Open first: graph.py (what depends on what), then runner.py.
"""
