"""Who trains next: decisions from what runs have shown, without torch and without files.

May import analysis, results and spec. Shape suffixes: A arms, S seeds, E examples, B draws.
"""
