"""Seconds of a unit of work on the reference machine, all from one command: `python -m benchmarks.growth --constants`.

It runs the functions that the stages run, divides, and writes BUSY and UNITS anew. On another machine a unit takes as
much longer as the resource that bounds it is slower there (see machines). Nothing else in the package is measured.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

REFERENCE = "2cores"  # of plan.machines: where these were measured

Bound = Literal["products", "memory", "cores", "one core"]


class Unit(NamedTuple):
    """seconds: of one unit on the reference machine with all of its cores. bound: the resource that it waits for."""

    seconds: float
    bound: Bound
    what: str


BUSY = False  # whether other work went on: then CPU seconds of one thread, halved where both share
UNITS = {
    "vice entry": Unit(3.6e-09, "memory", "an entry of the embedding in a step of VICE: draw, complexity, Adam"),
    "vice value": Unit(1.3e-09, "memory", "a dimension of a triplet in a step of VICE: its rows, their gradient"),
    "vice epoch": Unit(9.2e-08, "memory", "an entry of the embedding at the end of an epoch of VICE: pruning"),
    "vice step": Unit(1.4e-05, "one core", "what a step of VICE costs beside its arrays"),
    "lookup": Unit(1.3e-08, "memory", "a triplet looked up in a matrix of similarities and its softmax"),
    "answer": Unit(3.2e-08, "memory", "a triplet looked up in a matrix of similarities and answered"),
    "product": Unit(4.9e-12, "products", "an operation of a float32 product of matrices"),
    "map triplet": Unit(1.4e-07, "memory", "a triplet in a step of the map's fit"),
    "map row": Unit(5.4e-07, "one core", "a triplet sorted into its fold and measured on, once a fit"),
    "distance": Unit(5.8e-12, "products", "an operation of k-means: a row against a centroid"),
    "grouped image": Unit(6.3e-08, "one core", "an image sorted by its cluster, before any is drawn"),
    "draw": Unit(1.1e-07, "one core", "a distinct triplet drawn"),
    "label value": Unit(3.7e-10, "memory", "a feature of a triplet in labelling: three rows read, three products"),
    "transformer": Unit(6.4e-12, "products", "an operation of a transformer's forward pass"),
    "convolution": Unit(1.3e-11, "products", "an operation of a depthwise convolutional network's forward pass"),
    "trained transformer": Unit(6.3e-12, "products", "an operation of forward and backward in float32"),
    "trained convolution": Unit(2.8e-11, "products", "an operation of forward and backward in float32"),
    "decoded byte": Unit(1.4e-08, "cores", "a byte of a JPEG file read, decoded and resized, with both cores at it"),
    "image": Unit(0.0005, "cores", "what reading any image costs beside its bytes, with both cores at it"),
    "in-batch triplet": Unit(8.7e-09, "memory", "a triplet of a batch: loss and gradient"),
    "parameter": Unit(1.1e-09, "memory", "a parameter in a step: Adam and the way back to the start"),
    "double": Unit(1.9e-11, "products", "an operation of ridge regression in float64"),
    "picture": Unit(2.8e-07, "one core", "a pixel of a drawn picture"),
    "hashed byte": Unit(2.8e-10, "cores", "a byte read and hashed"),
}  # fmt: skip
