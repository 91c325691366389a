"""Runs trained together over one frozen base; knows no store, no progress bar, no policy.

May import adapters, base, data, spec.

Legend: K runs, N rows of a run, T tokens, I inputs, O outputs, R the largest rank.
"""
