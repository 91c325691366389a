"""The results of a study as records, whoever made them, and the judgement on them.

May import analysis and store; no torch, no words.
"""
