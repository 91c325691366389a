"""A study from its plan to its stored results; the one writer of the store.

May import everything below but the report.
"""
