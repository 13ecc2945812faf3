"""Used only by experiments/inference_scaling.py."""
