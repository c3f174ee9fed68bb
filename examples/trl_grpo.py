"""`trl grpo` with credit by token: its options and its YAML, and those of credit beside them.

    python examples/trl_grpo.py --config run.yaml
    accelerate launch --config_file examples/cluster/fsdp2.yaml examples/trl_grpo.py --config run.yaml

TRL's script makes whatever trainer `trl` names, so that naming another one is all there is to do.
"""

from __future__ import annotations

import trl

from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer


def main(arguments: list[str] | None = None) -> None:
    trl.GRPOConfig, trl.GRPOTrainer = FlowGRPOConfig, FlowGRPOTrainer
    from trl.scripts import grpo  # which looks both up when it is called

    grpo.main(*grpo.make_parser().parse_args_and_config(arguments, fail_with_unknown_args=False))


if __name__ == "__main__":
    main()
