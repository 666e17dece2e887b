"""What a configuration costs at any size on a named machine, from formulas and constants alone, without any data.

In: a configuration's graph, sizes, a machine of conf's section `plan`. Out: FLOPs, bytes, seconds, memory and disk of
every node, and what follows from them (advice.py). `doctor` measures the data and the models that are on this machine;
`plan` needs neither, and is for what is not here. Open first: nodes.py, then formulas.py.
"""
