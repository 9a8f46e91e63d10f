#!/bin/sh
# Builds Horovod for PyTorch over gloo and installs it into the environment of the Python given (`make horovod`).
#
# Two things keep the published source from building today, and nothing else is changed:
#   - its CMake files ask for C++14, but the headers of PyTorch need C++17 since version 2.1;
#   - its setup.py imports pkg_resources, which setuptools dropped in version 81. An older one is used for the build
#     only; the environment keeps its own.
set -eu

VERSION=0.28.1
PYTHON=${1:?"usage: $0 PYTHON"}
PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")

for tool in cmake g++ make; do
  command -v "$tool" >/dev/null || {
    echo "Building Horovod needs $tool. On Debian and Ubuntu: apt-get install cmake g++ make" >&2
    exit 1
  }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "$PYTHON" -m pip --disable-pip-version-check "$@"; }

pip install --quiet --target "$work/build-tools" 'setuptools<81' wheel
export PYTHONPATH="$work/build-tools"
pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest "$work" "horovod==$VERSION"
tar -xzf "$work/horovod-$VERSION.tar.gz" -C "$work"
cd "$work/horovod-$VERSION"
sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 17/' CMakeLists.txt horovod/torch/CMakeLists.txt

export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1
export HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
export CMAKE_POLICY_VERSION_MINIMUM=3.5 # what it builds with it asks for policies that CMake 4 dropped
pip wheel --no-deps --no-build-isolation --wheel-dir "$work" . >"$work/build.log" 2>&1 || {
  tail -n 40 "$work/build.log" >&2
  echo "Horovod $VERSION could not be built." >&2
  exit 1
}
pip install --quiet --no-deps "$work"/horovod-"$VERSION"-*.whl
cd /
PYTHONPATH='' "$PYTHON" -c 'import horovod.torch as hvd; assert hvd.gloo_built(); print("Horovod is installed.")'
