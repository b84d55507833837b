# An ordinary day in small, below $DAY, with the keys of $HOME: nothing here is anything but somebody's work.
set -eu
cd "$DAY"

# A package of the system: its script looks at what the system has.
mkdir -p deb/DEBIAN deb/opt/tool root/var/lib/dpkg/{info,updates}
: >root/var/lib/dpkg/status; echo tool >deb/opt/tool/tool
printf 'Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.example>\nDescription: tool\n' >deb/DEBIAN/control
printf '#!/bin/sh\ngetent passwd root >/dev/null\nchmod 755 "$DPKG_ROOT/opt/tool"\n' >deb/DEBIAN/postinst
chmod 755 deb/DEBIAN/postinst
dpkg-deb --build deb tool.deb >/dev/null
dpkg --root="$DAY/root" --force-script-chrootless --log="$DAY/dpkg.log" -i tool.deb >/dev/null

# A package of Python from a directory; ~/.netrc is there, and pip looks into it.
mkdir -p py/greet
echo 'hello = 1' >py/greet/__init__.py
echo 'from setuptools import setup; setup(name="greet", version="1", packages=["greet"])' >py/setup.py
python3 -m pip install -q --disable-pip-version-check --no-index --no-build-isolation --no-deps --root-user-action=ignore \
    --target site ./py

# A package of node with a script that builds it.
mkdir -p js/dep js/app
echo '{"name":"dep","version":"1.0.0","scripts":{"install":"node build.js"}}' >js/dep/package.json
echo 'require("fs").writeFileSync("built", "1")' >js/dep/build.js
echo '{"name":"app","version":"1.0.0","dependencies":{"dep":"file:../dep"}}' >js/app/package.json
(cd js/app && npm install --offline --no-audit --no-fund --foreground-scripts >/dev/null)

# A repository: committed, pushed to a file, and cloned from a server that asks who is there.
export GIT_CONFIG_GLOBAL="$DAY/gitconfig"
git config --global credential.helper store
git config --global user.email ada@example.com
git config --global user.name ada
git init -q --bare origin.git
project=$HOME/project
(cd "$project" && git init -q && git add -A && git commit -qm first && git push -q "$DAY/origin.git" HEAD:refs/heads/main)
git -C origin.git symbolic-ref HEAD refs/heads/main
git -C origin.git update-server-info
python3 "$DAY/server.py" "$DAY" "$PORT" >database &
server=$!
trap 'kill $server' EXIT
until [ -s database ]; do sleep 0.05; done
read -r database <database
git clone -q "http://127.0.0.1:$PORT/origin.git" clone

# An editor saves the configuration of the project, and somebody looks for something in it.
if command -v vim >/dev/null; then
    vim -u NONE -i NONE -es -c 'set backup' -c '1s/DEBUG=./DEBUG=1/' -c wq "$project/.env"
else
    sed -i 's/DEBUG=./DEBUG=1/' "$project/.env"
fi
grep -rn TODO "$project" >/dev/null
ps aux >/dev/null
env | sort >/dev/null

# A web service reads its configuration, logs in to its database, calls an interface and writes a log.
(cd "$project" && python3 "$DAY/web.py" "$PORT" "$database" "$DAY/web.log")

# A client of a cluster with the token of its configuration, and one of an interface with one of the environment.
python3 "$DAY/cluster.py" "$PORT"
printf 'header = "Authorization: Bearer %s"\n' "$API_TOKEN" | curl -sfK - "http://127.0.0.1:$PORT/v1" >/dev/null
# A login by a pipeline.
printf %s "$API_TOKEN" | sh -c 'read -r password; test -n "$password"'

# Logs are rotated, and homes are backed up, by cron.
"$DAY/cron" -c '
    mv "$DAY/web.log" "$DAY/web.log.1" && gzip -f "$DAY/web.log.1" && : >"$DAY/web.log"
    tar -C "$HOME" -czf "$DAY/backup.tgz" .
    find "$HOME" -name "*.tmp" -delete
    :'
rm -rf deb root py site js origin.git clone database tool.deb dpkg.log "$project/.git"
