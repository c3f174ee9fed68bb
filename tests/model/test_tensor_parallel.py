"""A model whose heads lie in several processes is refused, in each of them."""

import os
import subprocess
import sys

from tiny import tiny_model

SCRIPT = """
import sys
from transformers import AutoModelForCausalLM
from flowtracer.errors import CaptureError
from flowtracer.model.capture import AttentionReader

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], tp_plan="auto")
try:
    AttentionReader(model)
except CaptureError as error:
    print(error, flush=True)
"""


def test_heads_in_several_processes_are_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, str(tmp_path / "script.py"), str(tmp_path / "model")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("tensor parallelism over 2: load the model without tp_plan") == 2
