#!/bin/sh
# Usage: tools/make_env.sh <folder> [<interpreter>]
# Make the virtual environment with the first Python that really runs, is new enough and
# has venv.  Being on PATH is no proof: version managers leave shims there for versions
# that are switched off, so every candidate is asked.
set -eu

venv=$1
wanted=${2:-}
ask='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'

works() {
    "$1" -c "$ask" >/dev/null 2>&1
}

if [ -n "$wanted" ]; then
    if works "$wanted"; then
        exec "$wanted" "${0%.sh}.py" "$venv"
    fi
    echo "PYTHON=$wanted does not run, is older than 3.11 or lacks venv and ensurepip" \
        "(on Debian and Ubuntu: the package python3-venv)." >&2
    exit 1
fi

for name in python3.13 python3.12 python3.11 python3 python; do
    # Each place, not only the first: a shim may stand in front of one that works.
    IFS=:
    for folder in $PATH; do
        unset IFS
        candidate=${folder:-.}/$name
        if [ -x "$candidate" ] && works "$candidate"; then
            exec "$candidate" "${0%.sh}.py" "$venv"
        fi
    done
    unset IFS
done

echo "No Python of 3.11 or newer with venv and ensurepip found. Install one (on Debian and" \
    "Ubuntu with the package python3-venv), or name it: make PYTHON=/path/to/python3.12 ..." >&2
exit 1
