"""What experiments/pattern_selection.py needs of its own."""
