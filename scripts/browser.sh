#!/usr/bin/env bash
# Make sure that there is a browser for the tests of the page: Debian's or Ubuntu's chromium, installed when missing.
set -euo pipefail

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then exit 0; fi
done

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
  echo "expected chromium on the path, or apt-get with the right to install it, got neither; install chromium" >&2
  exit 2
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-inter >/dev/null
command -v chromium >/dev/null || { echo "expected apt-get to install chromium, got none on the path" >&2; exit 2; }
