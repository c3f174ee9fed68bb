"""One or two whole steps of verl on Ray, and what they leave behind; `test_step.py` starts it.

    python tests/with_verl/run_step.py FOLDER CHANGES

CHANGES is a JSON of changes to the configuration. FOLDER gets the weights before and after each step, as verl hands
them to the engine that samples, the batch that the policy was updated on, and the metrics.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PROBLEMS = [
    ([3, 4, 5], 17, "3 * 4 + 5"),
    ([2, 7, 8], 22, "2 * 7 + 8"),
    ([1, 6, 9], 54, "6 * 9"),
    ([2, 5, 6], 16, "2 * 5 + 6"),
]


def write_data(folder: Path) -> None:
    """Problems as verl's data sets have them."""
    from rollouts import TASK

    rows = []
    for index, (numbers, target, gold) in enumerate(PROBLEMS * 2):
        facts = {"numbers": numbers, "target": target, "gold": gold}
        rows.append(
            {
                "data_source": "countdown",
                "prompt": list(TASK.pose(**facts).prompt),
                "reward_model": {"style": "rule", "ground_truth": json.dumps(facts)},
                "extra_info": {"index": index},
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


def main(folder: Path, changes: dict[str, object]) -> None:
    os.environ.update(RUN_FOLDER=str(folder), OMP_NUM_THREADS="1")
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    from configured import configured, in_folder
    from omegaconf import open_dict
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    config = configured({**in_folder(folder), **changes})
    with open_dict(config):
        config.ray_kwargs.ray_init.update(
            num_cpus=16, num_gpus=2, include_dashboard=False, _temp_dir=os.environ.get("RAY_TMPDIR")
        )
    run_ppo(config, task_runner_class=TaskRunnerV1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
