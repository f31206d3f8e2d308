"""Comparisons of many runs: study files, their runs, and honest tables, plots and words."""
