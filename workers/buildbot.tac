# The worker of a virtualization host. Copy it to the worker's own folder (its base), beside worker.toml:
#
#     master = "farm.example.org:9989"     # host and port of the Buildmaster
#     name = "worker1"                     # as in the master's farm.toml
#     password_file = "password"           # holds what the master has in secrets/worker-NAME; mode 600
#     # describe = ["oscar-testdriver", "host", "--info", "info"]   # the command that says what this host can run
#
# Run: twistd --nodaemon --pidfile= --python=buildbot.tac

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from buildbot_worker.bot import Worker
from twisted.application import service

# What the worker and its runs leave is for this user alone.
os.umask(0o077)
base = Path(__file__).resolve().parent
if base.stat().st_uid == os.geteuid():
    base.chmod(0o700)
try:
    settings = tomllib.loads((base / "worker.toml").read_text(encoding="utf-8"))
    host, port = settings["master"].rsplit(":", 1)
    name, password_file = settings["name"], base / settings.get("password_file", "password")
    password = password_file.read_text(encoding="utf-8").strip()
    if password_file.stat().st_mode & 0o077:
        sys.exit(f"other users of this host can read {password_file}; close it: chmod 600 {password_file}")
except FileNotFoundError as error:
    sys.exit(f"{error.filename}: there is no such file; workers/README.md says how to set up a worker")
except (KeyError, ValueError, AttributeError, tomllib.TOMLDecodeError) as error:
    sys.exit(f"{base / 'worker.toml'}: {error}; it needs master = \"HOST:PORT\" and name = \"NAME\"")

# What this host can run: Buildbot's worker sends the files in `info` whenever it connects. The master sends this worker
# what its host can run; where that is not known, it assumes little.
info = base / "info"
describe = settings.get("describe", [str(Path(sys.executable).with_name("oscar-testdriver")), "host", "--info", str(info)])
try:
    info.mkdir(exist_ok=True)
    (info / "host.json").unlink(missing_ok=True)
    subprocess.run(describe, stdin=subprocess.DEVNULL, timeout=180, check=True)
except (OSError, TypeError, ValueError, subprocess.SubprocessError) as error:
    print(f"this host is not described to the master: {error}", file=sys.stderr)

application = service.Application("oscar-farm-worker")
worker = Worker(
    host,
    int(port),
    name,
    password,
    str(base),
    keepalive=60,
    umask=0o077,
    allow_shutdown=None,
)
# A master that was away is tried again after 1.5 s, then 2.25, 3.4 ... and at last about every minute: Twisted's
# own pauses. This worker has no setting for them (its `maxdelay` is without effect).
worker.bot.buffer_timeout = 1  # seconds that lines may wait on their way to the web page; the default is 5
worker.setServiceParent(application)
