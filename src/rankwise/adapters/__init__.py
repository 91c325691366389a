"""What a run trains beside the frozen base: targets, ranks, first weights, memory, files.

May import base, data, spec; no training, no store.

Legend: R rank, I inputs, O outputs of a module.
"""
