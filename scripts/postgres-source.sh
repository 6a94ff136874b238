#!/usr/bin/env bash
# postgres-source.sh FOLDER: fetches the source of the installed PostgreSQL 15 and makes FOLDER/regress (the tests
# of its pg_regress) and FOLDER/lib (the libraries these load). Done once; a folder that exists is whole.
set -euo pipefail

folder=$1
[ -d "$folder" ] && exit 0
here=$(cd "$(dirname "$0")" && pwd)
"$here/packages.sh" build-essential libpq-dev postgresql-15 dpkg-dev

mkdir -p "$(dirname "$folder")"
fresh=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
# apt's own user fetches; it must be able to write here.
chmod 755 "$fresh"
mkdir -p "$fresh"/{lists/partial,cache,fetched,new/lib}
chmod 777 "$fresh/fetched"

# Debian's own places, asked for sources too. Others, if any, are left alone: what they lack would be an error.
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [ -e "$file" ] || continue
    case $file in
        *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" > "$fresh/debian.sources" ;;
        *) sed -n 's/^deb /deb-src /p' "$file" > "$fresh/debian.list" ;;
    esac
done
source_list=$(find "$fresh" -maxdepth 1 -name 'debian.*' -size +0 | head -n 1)
apt_source=(-qq -o "Dir::Etc::sourcelist=$source_list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$fresh/lists"
    -o "Dir::Cache=$fresh/cache")
version=$(dpkg-query --show --showformat='${Version}' postgresql-15)

cd "$fresh/fetched"
apt-get "${apt_source[@]}" update
apt-get "${apt_source[@]}" source --download-only "postgresql-15=$version"
# For its headers; to install it would bring a compiler of LLVM's.
apt-get -qq download "postgresql-server-dev-15=$version"
tar -xf postgresql-15_*.orig.tar.*
dpkg-deb --extract postgresql-server-dev-15_*.deb headers
mv postgresql-15.*/src/test/regress "$fresh/new/regress"

cc -O1 -w -fPIC -shared -I headers/usr/include/postgresql/15/server -I "$(pg_config --includedir)" \
    -o "$fresh/new/lib/regress.so" "$fresh/new/regress/regress.c"
cp "$(pg_config --pkglibdir)"/{autoinc,refint}.so "$fresh/new/lib"
# The server reads the tests' data, and runs as another user.
chmod -R a+rX "$fresh/new"
mv "$fresh/new" "$folder"
