"""The frozen base model: where it is, its structure without weights, and loading it once.

May import spec, files, text; nothing that trains.
"""
