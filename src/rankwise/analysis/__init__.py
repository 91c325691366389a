"""What the numbers say: verdicts, factor effects, curves, failures. No torch, no files."""
