"""The smallest changes of an image that change a network's answer, and training against such changes.

in: a `Classifier` (pixels in [0, 1] -> logits), images and their classes. out: `Attacked`, images that are answered
otherwise, as near to the originals as the method finds, each verified. Open first: `attack`. It runs a method, checks
what it found, and repeats it in 8 bit. `minimum_norm` is the fast method, `pgd_search` that of Linsley et al. (2023),
`foolbox_attacks` what foolbox offers; `train` makes networks that tolerate more.
"""
