"""The chapters of a report, one file each.

May import results, analysis and the report's document.
"""
