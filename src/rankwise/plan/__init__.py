"""What will be run: arms, cohorts, and the ranks of each module."""
