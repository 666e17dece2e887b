"""From a command line to artifacts: the graph of nodes, what of it is missing, and its making in order.

In: overrides of conf/, a store. Out: a validated configuration, nodes as pure data, the state of each, new artifacts,
one clear message for an error. Open first: graph/ (what depends on what), then states.py and runner.py.

    conf -> overrides -> explain -> cli          a command line -> Config, or one message
    graph -> outside -> states -> messages -> runner -> ablation -> commands
    stage_run, payloads                          what a stage is given, and how it reads what others wrote
"""
