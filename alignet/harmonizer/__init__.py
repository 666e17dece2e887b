"""The Neural Harmonizer (Fel et al., NeurIPS 2022): training a network to look where people look.

In: an encoder with a classifier, labelled images, some of them with people's importance maps. Out: weights, curves. The
loss is cross-entropy plus, where there is a map, the distance between it and the gradient of the label's logit by the
pixels, at several scales. Open first: loss.py, then train.py.
"""
