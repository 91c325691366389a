"""The spec of a study: its models, reading it, its configurations and what identifies them.

May import text, files, errors; no torch.
"""
