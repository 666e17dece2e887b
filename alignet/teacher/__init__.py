"""From soft labels and a teacher's features to a map W, b, and from a pool of images to answered triplets.

In: features (m, p), human triplets with their probabilities. Out: the affine map (affine_map.py, which
fit_affine_map.py fits), clusters of the pool (clusters.py), triplets drawn across them (sampling.py) and the teacher's
answers (labelling.py). Open first: fit_affine_map.py.
"""
