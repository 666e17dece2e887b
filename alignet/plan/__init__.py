"""What a configuration costs at any size on a named machine, from formulas and constants alone, without any data.

    networks   forward and backward FLOPs, parameters and activations of a model
    formulas   FLOPs, bytes and units of work of each kind of computation, as functions of its sizes
    constants  seconds of a unit of work on the machine they were measured on
    machines   seconds of work on another machine
    sizes      how many images, triplets and objects a configuration is planned for
    nodes      the cost of every node of the graph
    advice     what fits a GPU, where one machine no longer serves, what to run next

`doctor` measures the data and the models that are on this machine; `plan` needs neither, and is for what is not here.
"""
