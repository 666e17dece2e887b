"""What any stage runs on: the store of artifacts, checkpoints, several processes, signals, progress, memory.

In: bytes that a stage wrote, steps it has done, signals. Out: complete artifacts, unfinished work that goes on where it
was, one line of progress. Nothing here knows what a triplet is. Open first: artifacts.py.
"""
