#!/bin/sh
# mmdebstrap's customize hook: download packages with all that they depend on. Usage: pool.sh ROOT FOLDER PACKAGE...
# An empty status file makes apt believe that nothing is installed, so that it fetches all that the packages depend on.
set -eu
folder=$1$2; shift 2
mkdir -p "$folder/partial"
: > "$folder/lock"
cd "$folder"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --quiet --download-only --no-install-recommends \
    -o Dir::State::status="$folder/lock" -o Dir::Cache::archives="$folder/" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User=root install "$@"
rm -r partial lock
# The epoch (%3a) is in no file name of a Debian archive: apt's file method would take it for an escaped colon.
for name in *%3a*; do
    [ ! -e "$name" ] || mv "$name" "$(echo "$name" | sed 's/_[0-9]*%3a/_/')"
done
apt-ftparchive packages . > Packages
apt-ftparchive release . > ../Release.new
mv ../Release.new Release
