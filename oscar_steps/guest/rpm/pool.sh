#!/bin/sh
# Download packages with all that they depend on into FOLDER. Usage: pool.sh HOME FOLDER RELEASE ARCHITECTURE PACKAGE...
set -eu
here=$(dirname "$0")
home=$1 folder=$2 release=$3 architecture=$4; shift 4
mkdir -p "$folder"
if [ $# -gt 0 ]; then
    # Into an empty root, so that nothing counts as installed.
    sh "$here/dnf.sh" "$home" --installroot="$home/nothing" --releasever="$release" --forcearch="$architecture" \
        --downloadonly --downloaddir="$folder" install "$@"
fi
createrepo_c --quiet "$folder"
