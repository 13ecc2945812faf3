"""Reasoning language models in pure-functional JAX: sample, verify, reinforce, measure."""

__version__ = "0.1.0"
