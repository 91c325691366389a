"""Cohorts: runs trained together over one frozen base in one process."""
