"""What experiments/thinklogit.py needs of its own."""
