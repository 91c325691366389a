"""The records of a study in `study.db`: schema and migrations, reader, writer.

May import errors and text; no torch.
"""
