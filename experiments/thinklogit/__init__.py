"""Used only by experiments/thinklogit.py."""
