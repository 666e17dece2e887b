"""Metrics: each module measures one set of features and returns a list of `bootstrap.Score`, some with tables.

alignet.evaluate.families gives them what they measure, and is the only place that lists them by name.
"""
