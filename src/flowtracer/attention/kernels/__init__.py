"""Head-mean attention of a layer on a GPU.

`rows` are the kernels, `launch` is how a layer is handed to them, `reference` their float64 twin.
"""
