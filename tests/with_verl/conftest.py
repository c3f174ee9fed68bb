"""Tests on verl, in an environment of its own: `make verl-test`. Without verl there is nothing to collect.

The folder must not be called after verl, which it would be taken for where that is not installed.
"""

import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
THERE = importlib.util.find_spec("verl") is not None
collect_ignore_glob = [] if THERE else ["test_*.py"]

if THERE:
    # verl picks its device as it is imported, here and in every process that Ray starts.
    os.environ.update(VERL_PLATFORM="cpu", VERL_USE_EXTERNAL_MODULES="on_cpu", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    # Beside other work: Ray gives up after 30 s, and starts its workers nice, which is then not at all.
    os.environ.update({"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "300"})
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(HERE))
