"""`make test-xen`: a real Xen, in a virtual machine, and the farm's Xen back-end on it.

First one profile boots as `Qemu` here; then the very same, with nothing but its type changed, as `Xen` in the Xen host;
two guests of a cluster reach each other there, and v2m is used as a person would. Where it is asked for, the
conformance suite then runs there, and its results are copied to a file of JSON lines. The exit status is 0 only when
all of it went well.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tests.vm.tiny_guest import CACHE
from tests.vm.xen.xenhost import CPU, HOME, ROOT, XenHost, xen_host

PROFILE = """\
<?xml version="1.0"?>
<!DOCTYPE profile PUBLIC "" "v3m_profile.dtd">
<profile>
  <name>oscarnode1</name>
  <type>Qemu</type>
  <memory>192</memory>
  <image size="64">oscarnode1.qcow2</image>
  <nic1><type>VLAN</type><mac>52:54:00:00:00:11</mac></nic1>
</profile>
"""
SMOKE_SECONDS = 600.0
USER_SECONDS = 1800.0
PYTHON = f"cd {HOME} && PYTHONPATH={HOME}:{HOME}/site PYTHONDONTWRITEBYTECODE=1 python3"
OUT = "/root/results.jsonl"


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make test-xen", description=__doc__)
    arguments.add_argument("--results", type=Path, help="where the suite's results go (JSON lines)")
    arguments.add_argument("--select", default="", help="pytest's -k: these tests of the suite, too; 'all': all of it")
    arguments.add_argument("--suite-only", action="store_true", help="nothing but these tests of the suite")
    arguments.add_argument("--minutes", type=float, default=60.0, help="for the suite")
    arguments.add_argument("--cpu", default=CPU, help="the Xen host's processor, as QEMU calls it")
    asked = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("test-xen: ended from outside"))
    began = time.monotonic()
    with _workplace() as directory:
        failures = [] if asked.suite_only or _smoke_here(directory) else ["the profile does not boot as Qemu"]
        (directory / "host").mkdir()
        with xen_host(directory / "host", asked.cpu) as host:
            if not asked.suite_only:
                failures += _used(host)
            if asked.select:
                failures += _suite(host, asked.select, asked.minutes * 60, asked.results)
            failures += _left(host)
    took = f"after {(time.monotonic() - began) / 60:.0f} minutes"
    print(f"test-xen: FAILED {took}: {'; '.join(failures)}" if failures else f"test-xen: all is well, {took}")
    return 1 if failures else 0


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """An empty directory, always the same: what a killed test-xen has left goes when the next one begins."""
    place = CACHE / "test-xen"
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place.with_suffix(".lock"), blocking=False):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            try:
                yield place
            finally:
                shutil.rmtree(place)
    except Timeout:
        raise SystemExit("test-xen: another one runs for this user; wait until it has ended") from None


def _smoke_here(directory: Path) -> bool:
    profile = directory / "vm.xml"
    profile.write_text(PROFILE, encoding="utf-8")
    command = [sys.executable, "-m", "tests.vm.xen.smoke", str(profile), str(directory / "smoke.jsonl")]
    return subprocess.run(command, cwd=ROOT, timeout=SMOKE_SECONDS, check=False).returncode == 0


def _used(host: XenHost) -> list[str]:
    """One profile, a cluster, and v2m in the Xen host; what failed, in a few words each."""
    failures = [] if _smoke_there(host) else ["the profile does not boot as Xen"]
    if host.run(f"{PYTHON} -m tests.vm.xen.cluster", SMOKE_SECONDS)[0] != 0:
        failures.append("a cluster's VLAN does not work as Xen")
    if host.run(f"{PYTHON} -m tests.vm.xen.user", USER_SECONDS)[0] != 0:
        failures.append("v2m does not work on a Xen host")
    return failures


def _smoke_there(host: XenHost) -> bool:
    changed = PROFILE.replace("<type>Qemu</type>", "<type>Xen</type>")
    diff = list(
        difflib.unified_diff(PROFILE.splitlines(), changed.splitlines(), "qemu/vm.xml", "xen/vm.xml", "", "", 0, "")
    )
    print("test-xen: the profile, but for its type:", *diff, sep="\n  ", flush=True)
    status, _ = host.run(
        f"cat > /root/vm.xml <<'END'\n{changed}END\n{PYTHON} -m tests.vm.xen.smoke /root/vm.xml /root/smoke.jsonl",
        SMOKE_SECONDS,
    )
    return status == 0


def _suite(host: XenHost, select: str, seconds: float, results: Path | None) -> list[str]:
    """The conformance suite in the Xen host; its failures, each in a few words."""
    chosen = "" if select == "all" else f" -k {select!r}"
    pytest = f"{PYTHON} -m pytest -p no:cacheprovider -v --timeout 1200 tests/vm/test_conformance_xen.py{chosen}"
    status, _ = host.run(f"{pytest} --conformance-json {OUT}", seconds)
    if results is not None:
        found, text = host.run(f"cat {OUT}", 60, show=False)
        if found == 0:
            results.write_text(text, encoding="utf-8")
            print(f"test-xen: the suite's results are in {results}")
    return [] if status == 0 else [f"the conformance suite ended with {status}"]


def _left(host: XenHost) -> list[str]:
    """Nothing of ours may be left on the hypervisor."""
    left: list[str] = []
    for question, ours in (("list --all --name", "Domain-0"), ("net-list --all --name", "default")):
        status, names = host.run(f"virsh -q -c xen:///system {question}", 120, show=False)
        if status != 0:
            return [f"libvirt does not tell what is left on the hypervisor: {names.strip()}"]
        left += [name for name in names.split() if name != ours]
    return [f"left on the hypervisor: {', '.join(left)}"] if left else []


if __name__ == "__main__":
    raise SystemExit(main())
