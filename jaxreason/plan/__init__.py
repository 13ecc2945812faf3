"""Whether a step of reinforcement learning fits a slice of TPUs, and what bounds it, asked of the compiler beforehand.

`python -m jaxreason.plan --model qwen3-0.6b --topology v5e:2x2` on any machine; no TPU is needed.
"""

import os
from pathlib import Path

if not any(Path("/dev").glob("accel*")) and not any(Path("/dev").glob("vfio/[0-9]*")):
    # No TPU: what its compiler would ask the network for as soon as jax starts. Several processes may use it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_WORKER_ID", "0")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
