"""Whether a step of reinforcement learning fits a slice of TPUs, and what bounds it, asked of the compiler beforehand.

`python -m jaxreason.plan --model qwen3-0.6b --topology v5e:2x2` on any machine; no TPU is needed.
"""
