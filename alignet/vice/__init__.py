"""VICE: a Bayesian embedding of objects from odd-one-out choices, and the soft labels it implies.

In: human triplets (n, 3), odd one out last. Out: a posterior loc, scale (m, d) with its unused dimensions pruned;
from it the distribution over the three answers of each triplet (soft_labels.py). model.py defines what is computed as a
Pyro program; engine.py, compiled.py (CPU) and graphed.py (GPU) compute it fast. Open first: fit.py, then engine.py.
"""
