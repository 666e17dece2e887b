"""Inputs that a network takes for the same, and whether they look the same.

in: an `Encoder`, images with pixels in [0, 1]. out: images that the network represents as it does a given one, and how
far these are from it by perceptual distances. Open first: `perceptual`, which says what a distance is.
"""
