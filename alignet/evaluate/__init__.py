"""Metrics: each module measures one set of features and returns a list of `bootstrap.Score`, some with tables.

In: features (m, p), and human choices, judgments or labels. Out: scores with their intervals, and the tables behind
figures. The package families gives the modules what they measure, and is the only place that lists them by name.
Open first: odd_one_out.py (a metric), then families/choices.py (how it gets its features).
"""
