"""Reasoning language models in pure-functional JAX: sample, verify, reinforce, measure."""
