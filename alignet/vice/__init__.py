"""VICE: a Bayesian embedding of objects from odd-one-out choices, and the soft labels it implies."""
