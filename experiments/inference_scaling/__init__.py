"""What experiments/inference_scaling.py needs of its own."""
