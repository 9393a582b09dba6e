#!/usr/bin/env bash
# Installs the core alone, without any extra, into .venv-core, and runs train, eval and embed with it. Offline once installed.
set -euo pipefail
cd "$(dirname "$0")/.."
where=$(mktemp -d)
trap 'rm -rf "$where"' EXIT
venv=.venv-core
scripts/setup.sh core "$venv"
tonggan=$venv/bin/tonggan
"$venv/bin/python" - <<'PY'
import importlib.util
extras = ["transformers", "lancedb", "fastapi", "gradio", "matplotlib", "openpyxl", "datasets"]
found = [name for name in extras if importlib.util.find_spec(name)]
assert not found, f"not the core alone: {found}"
PY
"$tonggan" train quickstart --out "$where/run" --limit 200 stages.0.train.steps=12
"$tonggan" eval "$where/run" --data scenes --limit 60
"$tonggan" embed "$where/run" "一个红色的圆形" "a red circle" --json >"$where/vectors.json"
"$venv/bin/python" -c "import json,sys; v=json.load(open(sys.argv[1])); assert len(v['items']) == 2 and v['dim'] > 0" "$where/vectors.json"
# What the core cannot do says how to get it.
if "$tonggan" index "$where/run" scenes --to "$where/index" --limit 5 2>"$where/error"; then echo "index worked without its extra" >&2; exit 1; fi
grep -q "pip install 'tonggan\[search\]'" "$where/error"
echo "core alone: train, eval and embed work; an absent extra is named"
