"""Metrics: each module measures one set of features and returns a list of `bootstrap.Score`.

`families` is the only place that lists them by name.
"""
