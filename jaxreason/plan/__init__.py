"""Does a GRPO step fit a slice of TPUs, and what bounds its time? The compiler answers; no TPU is needed.

`python -m jaxreason.plan --model qwen3-0.6b --topology v5e:2x2` on any machine.
"""

import os
from pathlib import Path

if not any(Path("/dev").glob("accel*")) and not any(Path("/dev").glob("vfio/[0-9]*")):
    # No TPU: libtpu would query the network for these as soon as jax starts, and lock itself to one process.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_WORKER_ID", "0")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
