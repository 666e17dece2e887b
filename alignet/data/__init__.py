"""Files from outside, read strictly: images, human choices, features, trials, judgments, hierarchies, tables.

In: paths, and what a file does not say of itself (its index base, the column of the odd one out, its bands). Out:
arrays in one convention, or an error that names the file and what is wrong with it; the digest of a set of data. No
pickle is opened in this process. Open first: index.py (what a set is known by), triplets.py, pixels.py.
"""
