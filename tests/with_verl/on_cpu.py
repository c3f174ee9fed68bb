"""verl on a CPU, where it knows GPUs alone. Verl loads it as it is imported, in every process.

1. A device: what Ray counts as GPUs are processes, which speak by gloo.
2. The engines under that device: FlowTracer's, and with VERL_ENGINE_VENDOR=stock verl's own.
3. No engine that samples: `rollouts.py` takes its place.
4. A listener: the batch that the policy is updated on, and the metrics, are kept on disk.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

_NONE = SimpleNamespace(
    **dict.fromkeys(
        ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"), lambda *_: 0
    ),
    **dict.fromkeys(("empty_cache", "synchronize", "reset_peak_memory_stats", "ipc_collect"), lambda *_: None),
    mem_get_info=lambda *_: (0, 0),
    is_available=lambda: False,
    device_count=lambda: 0,
    current_device=lambda: "cpu",
    get_device_name=lambda *_: "CPU",
    set_device=lambda *_: None,
    get_rng_state=torch.get_rng_state,
    set_rng_state=torch.set_rng_state,
)


@PlatformRegistry.register(platform="cpu")
class OnCpu(PlatformBase):
    """What verl asks a device for."""

    device_name = "cpu"
    vendor_name = "none"
    device_module = _NONE

    def is_available(self):
        return True

    def current_device(self):
        return torch.device("cpu")

    def device_count(self):
        return 2

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return "GPU"

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None


def _register():
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
    from verl.workers.rollout import base, llm_server, replica

    from flowtracer.rl.verl.engine import FlowEngine

    # verl would name the one device twice.
    initialise = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend=None, **options: initialise("gloo", **options)
    for vendor, engine in (("none", FlowEngine), ("stock", FSDPEngineWithLMHead)):
        EngineRegistry.register("language_model", ["fsdp", "fsdp2"], device="cpu", vendor=vendor)(engine)
    base._ROLLOUT_REGISTRY["on_cpu", "async"] = "rollouts.OnDisk"
    replica.RolloutReplicaRegistry.register("on_cpu", lambda: replica.RolloutReplica)
    llm_server.LLMServerManager.create = llm_server.LLMServerManager.create_empty


def _listen():
    import transfer_queue as tq
    from safetensors.torch import save_file
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.tracking import Tracking

    folder, update, log = Path(os.environ["RUN_FOLDER"]), PPOTrainer._update_actor, Tracking.log

    def updating(self, batch, metrics):
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id)
        nested = {name: value for name, value in data.items() if getattr(value, "is_nested", False)}
        parts = {f"{name}/{row:03}": x.contiguous() for name, v in nested.items() for row, x in enumerate(v.unbind())}
        save_file(parts, folder / f"batch-{self.global_steps}.safetensors")
        return update(self, batch, metrics)

    def logging(self, data, step, **others):
        numbers = {name: float(value) for name, value in data.items() if not isinstance(value, dict)}
        (folder / f"metrics-{step}.json").write_text(json.dumps(numbers))
        return log(self, data, step, **others)

    PPOTrainer._update_actor, Tracking.log = updating, logging


if os.environ.get("RUN_FOLDER"):
    _register()
    _listen()
