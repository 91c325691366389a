"""The report: a pure function of the stored results, as Markdown, HTML and JSON.

May import results, analysis, store and text; no torch.
"""
