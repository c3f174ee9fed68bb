#!/usr/bin/env bash
# Write requirements.lock: the exact versions, with hashes, of all that development needs, for every Python and system
# that the package supports. `scripts/setup.sh` installs from it.
# usage: scripts/lock.sh [venv]          the newest releases that pyproject.toml allows
#        KEEP=1 scripts/lock.sh [venv]   those that are locked already, and what is new in pyproject.toml
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
inputs=$(mktemp -d)
trap 'rm -r "$inputs"' EXIT

# torch has a build for each kind of machine, so setup.sh chooses it; what it needs beside CUDA is locked here.
echo "torch ; python_version < '0'" >"$inputs/overrides.txt"
printf '%s\n' filelock fsspec networkx setuptools sympy >"$inputs/torch.in"
upgrade=(--upgrade)
[ -z "${KEEP:-}" ] || upgrade=()
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install uv
"$venv/bin/uv" pip compile pyproject.toml "$inputs/torch.in" --extra dev --universal --python-version 3.10 "${upgrade[@]}" \
  --generate-hashes --overrides "$inputs/overrides.txt" --no-annotate --custom-compile-command "make lock" \
  --output-file requirements.lock --quiet
