"""What each process of a training of several runs; `test_processes.py` starts them.

    python -m torch.distributed.run --nproc_per_node 2 tests/rl/processes.py OUT RUNS

RUNS is a file of JSON: a run's options by its name. Of each run every process leaves `NAME-RANK.json`, and the first
its weights, `NAME.safetensors`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from flowtracer.errors import InputError
from flowtracer.model.capture import AttentionReader
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))

from trainers import RESPONSES, make_trainer, saying

SAID = [*RESPONSES[:3], "e, o: no"]
"""The first two have an answer, the other two none, so that a second process has nothing to trace."""


def make(folder, model, *, fsdp=False, strategy="flow", **options):
    """A trainer whose update is linear in the gradient: Adam's takes the sign of what is rounding."""

    def config(**others):
        AcceleratorState._reset_state()  # what an earlier run left
        made = FlowGRPOConfig(fsdp=fsdp, credit=strategy, **others)
        if made.world_size > 1:
            # accelerate opens FSDP to GPUs alone, and takes a CPU that asks for it as DDP without a word.
            kind = DistributedType.MULTI_GPU if fsdp else DistributedType.MULTI_CPU
            made.distributed_state.distributed_type = kind
        return made

    given = {"max_completion_length": 60, "num_generations": 4, "optim": "sgd", "learning_rate": 0.1, **options}
    return make_trainer(folder, FlowGRPOTrainer, config, model=model, **given)


def run(folder, model, *, resume=None, **options):
    """The weights in the end, and what else is compared: the log, and the forwards of credit's own by their width.

    The responses are the same whatever the number of processes.
    """
    trainer = make(folder, model, **options)
    saying(trainer, SAID, trainer.accelerator.process_index * trainer.args.per_device_train_batch_size)
    reads, read = [], AttentionReader.read

    def counted(self, ids_BT, *args, **kwargs):
        reads.append(ids_BT.shape[1])
        return read(self, ids_BT, *args, **kwargs)

    AttentionReader.read = counted
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(folder / resume))
    finally:
        AttentionReader.read = read
    kept = ("credit/own_forward", "credit/traced", "credit/boosted_share", "step")
    log = [{name: line[name] for name in kept if name in line} for line in trainer.state.log_history]
    said = {"log": log[:-1], "reads": reads, "kind": trainer.accelerator.distributed_type.value}
    weights = trainer.accelerator.get_state_dict(trainer.model)
    return {name: value.contiguous().clone() for name, value in weights.items()}, said


def main(out: Path, runs: dict[str, dict]) -> None:
    warnings.simplefilter("ignore")
    rank = PartialState(cpu=True).process_index
    for name, options in runs.items():
        try:
            weights, said = run(out / options.pop("folder", name), **options)
        except InputError as error:
            weights, said = {}, {"refused": str(error)}
        (out / f"{name}-{rank}.json").write_text(json.dumps(said))
        if rank == 0:
            save_file(weights, out / f"{name}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
