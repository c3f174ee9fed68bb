"""What verl loads by the entry point `verl.plugins`, in the driver and in every worker.

Loading is all that verl does with an entry point, so it registers as it is imported. The engine goes in under a vendor,
which verl looks up before the engine of its own; where no credit is asked for it is that engine.
"""

from __future__ import annotations

from verl.trainer.ppo.v1 import register_trainer
from verl.workers.engine import EngineRegistry

from flowtracer.rl.verl.engine import FlowEngine
from flowtracer.rl.verl.options import MODE
from flowtracer.rl.verl.trainer import FlowTrainer

EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)(FlowEngine)
register_trainer(MODE)(FlowTrainer)
