#!/bin/sh
# Compose the version from a VERSION file.
# usage: get-oscar-version.sh VERSION [--base|--full|--nightly|--major|--minor|--release|--greek|--svn|--all]
version_file=$1
option=${2:---full}

case $version_file in
    */*) . "$version_file" ;;
    *) . "./$version_file" ;;
esac

base=$major.$minor
if [ "${release:-0}" != 0 ]; then
    base=$base.$release
fi
base=$base$greek

revision() {
    if [ "$svn_r" != -1 ]; then
        echo "$svn_r"
        return
    fi
    r=$(svnversion . 2>/dev/null)
    case $r in
        [0-9]*) echo "r$r" ;;
        *) echo "svn$(date +%m%d%Y)" ;;
    esac
}

full=$base
case $option in
    --base | --major | --minor | --release | --greek) ;;
    *) if [ "$want_svn" = 1 ]; then full=$base$(revision); fi ;;
esac

case $option in
    --base) echo "$base" ;;
    --full) echo "$full" ;;
    --nightly) echo "${full}nightly-$(date +%Y%m%d)" ;;
    --major) echo "$major" ;;
    --minor) echo "$minor" ;;
    --release) echo "$release" ;;
    --greek) echo "$greek" ;;
    --svn) echo "$svn_r" ;;
    --all) echo "$full:$major:$minor:$release:$greek:$svn_r" ;;
    *) echo "Unknown option $option" ;;
esac
exit 0
