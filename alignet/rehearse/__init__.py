"""A rehearsal: the same graph on little data, before days are spent on it.

In: a configuration as it will run. Out: the configuration on a small scale in a folder of its own (cut_down.py, with
the values of conf/rehearse.yaml), and the data that it reads: drawn in the real formats (miniatures.py), or thin slices
of the user's own files (slices.py). Everything that comes of it says REHEARSAL. Open first: cut_down.py.
"""
