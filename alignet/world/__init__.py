"""The drawn world: pictures, participants and pretrained networks, so that the whole chain runs without a download.

In: the section `world` of the configuration and a seed. Out: image folders, choices and judgments in the formats of the
published data sets, with their true probabilities; a pretrained teacher and student. Open first: world.py.
"""
