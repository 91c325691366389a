"""Statistics: verdict, effects of settings, curves, failures. No torch, no files, no sentences."""
