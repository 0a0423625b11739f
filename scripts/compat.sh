#!/usr/bin/env bash
# Try versions of SGLang: scripts/compat.sh [VERSION...]; none given, all that the package index has since the first in
# blendrun/engine/sglang_names.py. Prints a row of a table for each; what pytest said is in build/compat/VERSION.log.
#
# A version gets a venv in front of the project's: in it are SGLang and what else must change for it, some 500 MB, and
# the rest is the project's. So is torch, unless TORCH=pinned asks for the version's own, which takes some GB. The venv
# goes when the row is there, at the latest after 12 minutes. VENV: the project's, .venv where nothing is said.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$(realpath "${VENV:-.venv}")
export PYTHONPATH=$PWD UV_LINK_MODE=hardlink
uv=("$base/bin/uv" pip)
site='import site; print(site.getsitepackages()[0])'
logs=build/compat
mkdir -p "$logs"

# What of the project stays whatever a version wants: GBs, and no CPU runs it. Kernels are built for one torch.
kept='nvidia|cuda|nvshmem|nccl|flash|tilelang|quack'
[ "${TORCH:-installed}" = pinned ] || kept="$kept|torch|triton|sgl[-_]|sglang[-_]kernel"

versions() {
  "$base/bin/python" -m pip index versions sglang 2>/dev/null | "$base/bin/python" -c '
import re, sys
from blendrun.engine.sglang_names import FIRST
def order(found): return [int(part) for part in re.findall(r"\d+", found)]
found = re.search(r"Available versions: (.*)", sys.stdin.read())[1].split(", ")
print(*sorted((one for one in found if order(one) >= order(FIRST)), key=order))'
}

# venv VERSION FOLDER: the project's constraints, with as few lines changed as the version asks for.
venv() (
  set -e
  "${uv[0]}" venv --quiet --python "$base/bin/python" "$2"
  # After what is in this one.
  "$base/bin/python" -c "$site" >"$("$2/bin/python" -c "$site")/project.pth"
  cp constraints.txt "$2/wanted.txt"
  echo "sglang==$1" >"$2/version.txt"
  "${uv[@]}" freeze --python "$base/bin/python" | grep -Ei "^($kept)" >"$2/kept.txt"
  "${uv[@]}" compile pyproject.toml --quiet --python "$base/bin/python" --extra sglang --constraint "$2/version.txt" \
    --override "$2/kept.txt" --no-header --no-annotate --output-file "$2/wanted.txt" >/dev/null
  "${uv[@]}" freeze --python "$base/bin/python" | sort >"$2/has.txt"
  sed 's/ *;.*//' "$2/wanted.txt" | sort | comm -23 - "$2/has.txt" >"$2/changed.txt"
  "${uv[@]}" install --quiet --python "$2/bin/python" --no-deps --requirement "$2/changed.txt"
  # Its entry points; the code is here.
  "${uv[@]}" install --quiet --python "$2/bin/python" --no-deps --editable .
)

[ $# -gt 0 ] || set -- $(versions)
"$base/bin/python" scripts/compat_row.py --head
for version; do
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  log=$logs/$version.log
  # Not as a condition, in which bash goes on after a failure.
  set +e
  venv "$version" "$folder/venv" >"$log" 2>&1
  failed=$?
  set -e
  if [ "$failed" = 0 ]; then
    timeout 720 "$folder/venv/bin/python" scripts/compat_row.py --log "$log" || true
  else
    echo "| $version | cannot be installed: $log |"
  fi
  rm -rf "$folder"
done
