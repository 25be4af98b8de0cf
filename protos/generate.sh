#!/bin/sh
# Generate the Python code of the .proto files; with --check, fail if what is committed differs.
#
#   PYTHON=.venv/bin/python protos/generate.sh [--check]
#
# The generator is pinned: newer generated code does not import under older protobuf runtimes,
# so an update of it raises the oldest protobuf that our users may have.
set -eu

python=${PYTHON:-python3}
wanted=1.78.0

cd "$(dirname "$0")/.."
found=$("$python" -c 'from importlib.metadata import version; print(version("grpcio-tools"))' 2>/dev/null || echo none)
if [ "$found" != "$wanted" ]; then
    echo "generate.sh: $python has grpcio-tools $found: install grpcio-tools==$wanted, or set PYTHON" >&2
    exit 2
fi

# protoc names a generated module after the path of its .proto, so that it imports as it stands.
generate() {
    "$python" -m grpc_tools.protoc -I protos --python_out="$1" --pyi_out="$1" protos/pyraft/transport/*.proto
}

if [ "${1:-}" != --check ]; then
    generate .
    exit
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
generate "$fresh"
status=0
for proto in protos/pyraft/transport/*.proto; do
    generated=${proto#protos/}
    generated=${generated%.proto}_pb2.py
    diff -u "$generated" "$fresh/$generated" || status=1
    diff -u "${generated}i" "$fresh/${generated}i" || status=1
done
[ $status = 0 ] || echo "generate.sh: generated code is not what the .proto says: run protos/generate.sh" >&2
exit $status
