#!/usr/bin/env bash
# Known faults of every locked dependency, their licences, and a bill of materials: build/bom.json.
# usage: scripts/audit.sh [environment]     the tools get an environment of their own, .venv-audit
set -uo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
tools=.venv-audit/bin
[ -x "$tools/python" ] || python3 -m venv .venv-audit
"$tools/python" -m pip --disable-pip-version-check --quiet install pip-audit cyclonedx-bom pip-licenses || exit 2
mkdir -p build
failed=0

echo "== bill of materials"
"$tools/cyclonedx-py" requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
  --output-file build/bom.json && echo "build/bom.json" || failed=1

echo "== licences"
# Of zss, which reasoning-gym needs, the package's own metadata say nothing; its source has MIT.
"$tools/pip-licenses" --python "$venv/bin/python" --from mixed --partial-match --ignore-packages zss flowtracer --allow-only \
  "MIT;BSD;Apache;ISC;PSF;Python Software Foundation;MPL;Mozilla Public License;Zlib;Unlicense;0BSD;CC0;HPND;Public Domain" \
  --summary || failed=1

echo "== known faults"
# Hashes are in the lock, so nothing is installed to be looked at. The services that know of faults need a network.
"$tools/pip-audit" --requirement requirements.lock --no-deps --disable-pip --strict || failed=1
exit "$failed"
