"""Ctrl-C ends a run wherever it lands."""

import subprocess
import sys

LOST = """
import gc, signal, time
from dataclasses import dataclass
from jaxreason.runs import main

@dataclass(frozen=True)
class Config:
    pass

def interrupted(phase, info):
    gc.callbacks.remove(interrupted)
    raise KeyboardInterrupt

def run(cfg):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    gc.callbacks.append(interrupted)
    gc.collect()
    time.sleep(5)
    print("went on")

main(run, Config)
"""


def test_ctrl_c_within_a_callback_of_the_garbage_collector_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("stopped: run the same command") and done.stderr.count("\n") == 1
