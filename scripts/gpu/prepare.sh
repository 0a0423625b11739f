#!/usr/bin/env bash
# Gathers what blendrun needs on a GPU machine without network that has CUDA's compiler, PyTorch and Triton, in one folder:
#
#     scripts/gpu/prepare.sh [FOLDER] [PYTHON]      # default: gpu-carry, 3.12
#
# FOLDER then holds site.tar.xz (SGLang at the version of constraints.txt and what it imports, blendrun, a stand-in for
# SGLang's compiled kernels), the model folder of Llama-3-8B without weights, the job, and the scripts. There, with
# nothing else: python3 FOLDER/rounds.py --out OUT. Needs `make demo` or `make test` to have made .venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${1:-gpu-carry}")
python=${2:-3.12}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
site=$made/site

scripts/gpu/site.sh "$site" "$python"
rm -rf "$folder"
mkdir -p "$folder"
tar --create --sort=name --owner=0 --group=0 --numeric-owner --directory "$site" . | xz -6 --threads=0 > "$folder/site.tar.xz"
cp scripts/gpu/*.py scripts/gpu/there.txt scripts/bench/contrast.py "$folder"
.venv/bin/python scripts/gpu/model.py "$folder/llama-3-8b"
.venv/bin/python scripts/bench/contrast.py h200-small-pool "$folder/job.jsonl"
gzip --no-name "$folder/job.jsonl"
du --apparent-size --block-size=KiB --all "$folder" | sort --numeric-sort
