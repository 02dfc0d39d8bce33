"""What the conformance suite stands on: back-ends as the suite needs them, and the book-keeping of what came out.

A back-end that says NotOffered has refused an operation; that is right only where its adapter expects it, in these
words. So neither a new refusal nor a new ability goes unnoticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import re
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from oscar_steps.errors import NotOffered
from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.machine import Ended, EventKind, Listener, Machine, MachineEvent
from oscar_steps.v3m.profiles.vm import Hypervisor, VMProfile, parse_profile
from tests.vm.conformance_table import OPERATIONS, Outcome, Result, Results
from tests.vm.tiny_guest import BUTTON_MODULES, CD_MODULES, LIMIT, MODULES, XEN_MODULES, parameters, says, until

GUEST_MODULES = (*MODULES, *CD_MODULES, *BUTTON_MODULES, *XEN_MODULES)
"""One guest for all back-ends: a driver whose device is missing does nothing."""

GUEST_CASES = {
    # A screen with words, then numbers for ever.
    "life": """seq 20 > /dev/tty0 2>/dev/null
        while :; do n=$((n + 1)); say "counts $n"; sleep 0.2; done""",
    # It writes 1 MiB, listens where SSH does, tells which CD it sees, and goes off when its power button is pressed.
    "hands": """printf '#!/bin/sh\\necho SSH-2.0-tiny\\n' > /bin/banner
        printf '#!/bin/sh\\n[ "$1" = bound ] && ip address add $ip/24 dev $interface\\n' > /bin/bound
        chmod +x /bin/banner /bin/bound
        for button in /dev/input/event*; do (head -c 24 $button > /dev/null && poweroff -f) & done
        yes | dd of=$(disk) bs=64k count=16 iflag=fullblock conv=fsync && say "has written"
        if [ "$cd" = yes ]; then (while :; do
            sees=$(head -c 12 /dev/sr0 2>/dev/null | tr -d '\\0')
            [ "$sees" = "$saw" ] || say "sees CD: ${sees:-none}"
            saw=$sees; sleep 0.2; done) & fi
        ip link set eth0 up; udhcpc -q -n -i eth0 -s /bin/bound && nc -ll -p 22 -e /bin/banner & rest""",
    # The VLAN's server: addresses, and over HTTP a boot script, a kernel and an initrd (firmware of today can do that).
    "serve": """ip link set eth1 up; ip address add 10.9.1.1/16 dev eth1; mkdir -p /var/lib/misc
        printf 'start 10.9.1.100\\nend 10.9.1.109\\ninterface eth1\\nboot_file http://10.9.1.1/boot\\n' > /etc-udhcpd
        printf 'option subnet 255.255.0.0\\n' >> /etc-udhcpd; touch /var/lib/misc/udhcpd.leases
        printf '#!ipxe\\nkernel vmlinuz console=ttyS0 quiet do=install\\ninitrd initrd\\nboot\\n' > /www/boot
        httpd -h /www && udhcpd -a 100 /etc-udhcpd && say "is up"; rest""",
}

HEAD = """
<profile>
  <name>head</name>
  <type>TYPE</type>
  <memory>192</memory>
  <image size="16" bus="virtio">disks/head.ENDING</image>
  <nic1><type>TUN/TAP+NAT</type><mac>52:54:00:00:00:01</mac></nic1>
  <nic2><type>VLAN</type><mac>52:54:00:00:00:02</mac></nic2>
</profile>
"""
NODE = """
<profile>
  <name>node</name>
  <type>TYPE</type>
  <memory>192</memory>
  <image size="16" bus="virtio">disks/node.ENDING</image>
  <nic1><type>VLAN</type><mac>52:54:00:00:00:11</mac></nic1>
</profile>
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A machine that the suite wants. `kernel`: loaded in every boot; None: the machine boots as a real one does."""

    profile: VMProfile
    kernel: DirectKernel | None = None
    base_image: Path | None = None


@dataclass(frozen=True)
class Backend(ABC):
    """How the suite comes by machines of one type. It can be pickled: another process may make machines with it."""

    directory: Path

    type: ClassVar[Hypervisor]
    ending: ClassVar[str] = "qcow2"
    """Of disks' files."""
    console: ClassVar[str] = "ttyS0"
    has_firmware: ClassVar[bool] = True
    """Whether its machines boot CDs and networks by themselves."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Operations that it is expected to refuse, each with a pattern of its sentence."""

    @property
    def seconds(self) -> float:
        """Until a tiny guest must have said or done something."""
        return LIMIT

    def where(self) -> str:
        """The host on which it is tried, for the table; empty: the host of the table's reader."""
        return ""

    def unproven(self, operation: str) -> str | None:  # noqa: ARG002 - of this one there is nothing to say
        """Why it cannot be tried on this host; None when it can. A test is skipped if none of its operations can."""
        return None

    @abstractmethod
    def machines(self, wanted: list[Wanted], listener: Listener | None) -> list[Machine]:
        """Make machines on one VLAN; the first is switched on first. Raises NotOffered where there are none."""

    def twin(self, machine: Machine, listener: Listener) -> Machine:
        """`machine` once more, off, as another host has it that sees the same disk and VLAN: where to migrate."""
        raise NotImplementedError

    async def kill(self, machine: Machine) -> None:
        """End the machine behind our back."""
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """What of its machines is still alive on this host."""
        return [entry.name for entry in ledger.find_leftovers(self.directory)]


@dataclass
class Rig:
    """One test's back-end, guest, machines and results."""

    backend: Backend
    guest: DirectKernel
    results: Results
    operations: tuple[str, ...] = ()
    """What the test has declared to prove."""
    events: list[MachineEvent] = field(default_factory=list)
    _machines: list[Machine] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)

    @property
    def directory(self) -> Path:
        return self.backend.directory

    def profile(self, xml: str) -> VMProfile:
        """The profile as a file of this back-end's has it: only type and the ending of its disk differ."""
        text = xml.replace("TYPE", self.backend.type).replace("ENDING", self.backend.ending)
        return parse_profile(text.strip(), f"{self.backend.type}.xml")

    def kernel(self, do: str, guest: DirectKernel | None = None) -> DirectKernel:
        return replace(guest or self.guest, parameters=parameters(do, self.backend.console))

    def machine(self, do: str | None = None, base_image: Path | None = None) -> Machine:
        """A machine alone, with a NIC to the host."""
        kernel = None if do is None else self.kernel(do)
        return self.machines(Wanted(self.profile(HEAD), kernel, base_image))[0]

    def machines(self, *wanted: Wanted) -> list[Machine]:
        made = self.backend.machines(list(wanted), self.events.append)
        self._machines += made
        return made

    def twin(self, machine: Machine) -> Machine:
        made = self.backend.twin(machine, self.events.append)
        self._machines.insert(0, made)
        return made

    def kinds(self, machine: Machine) -> list[EventKind]:
        return [event.kind for event in self.events if event.machine == machine.name]

    async def ended(self, machine: Machine) -> Ended:
        async with asyncio.timeout(self.backend.seconds):
            return await machine.wait_ended()

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition, self.backend.seconds)

    async def says(self, machine: Machine, words: str) -> None:
        console = machine.console
        try:
            await self.until(lambda: says(console, words.encode()))
        except TimeoutError:
            said = console.read_text(errors="replace")[-400:] if console.exists() else ""
            raise AssertionError(f"{machine.name} did not say {words!r}; its console ends with {said!r}") from None

    @contextlib.contextmanager
    def trying(self, operation: str) -> Iterator[None]:
        """What happens in the block proves `operation`. A refusal ends the block, and the test goes on behind it."""
        assert operation in self.operations, f"the test has not declared to prove '{operation}'"
        try:
            yield
        except NotOffered as error:
            self._refused(operation, str(error))
        except pytest.skip.Exception as skipped:
            self._record(operation, Outcome.UNPROVEN, str(skipped))
            raise
        except BaseException as error:
            self._record(operation, Outcome.FAILED, _first_line(error))
            raise
        else:
            self._passed(operation)

    async def run(self, test: Callable[[], Awaitable[None]]) -> None:
        """Run the test, end its machines, and see to it that each operation that it has declared has its result."""
        try:
            await test()
        except NotOffered as error:  # outside of a block: there is no such machine, and so none of all this
            for operation in self._open():
                self._refused(operation, str(error))
        except pytest.skip.Exception as skipped:
            self.skip(dict.fromkeys(self._open(), str(skipped)))
            raise
        except BaseException as error:
            for operation in self._open():
                self._record(operation, Outcome.FAILED, f"not reached: {_first_line(error)}")
            raise
        finally:
            await self._end()
        assert self._open() == [], "the test has declared what it has not tried"

    async def _end(self) -> None:
        """End the machines. Where one does not end, or something of it is left, nothing that was tried has passed."""
        try:
            for machine in self._machines:
                await machine.destroy()
            assert not (left := self.backend.left()), f"left behind: {', '.join(left)}"
        except BaseException as error:
            for operation in tuple(self._done):
                self._record(operation, Outcome.FAILED, f"and then, at its end: {_first_line(error)}")
            raise

    def skip(self, reasons: Mapping[str, str | None]) -> None:
        """These operations are not tried; each has its reason."""
        for operation, reason in reasons.items():
            self._record(operation, Outcome.UNPROVEN, reason or "")

    def _open(self) -> list[str]:
        return [operation for operation in self.operations if operation not in self._done]

    def _passed(self, operation: str) -> None:
        if operation in self.backend.refused:
            self._record(operation, Outcome.FAILED, "it works, and the adapter expects a refusal")
            raise AssertionError(f"{self.backend.type} is expected to refuse '{operation}', and it works")
        self._record(operation, Outcome.PASSED)

    def _refused(self, operation: str, sentence: str) -> None:
        expected = self.backend.refused.get(operation)
        if expected is None or not re.search(expected, sentence):
            self._record(operation, Outcome.FAILED, f"refused, which is not expected: {sentence}")
            raise AssertionError(f"{self.backend.type} is not expected to refuse '{operation}' so: {sentence}")
        self._record(operation, Outcome.REFUSED, sentence)

    def _record(self, operation: str, outcome: Outcome, reason: str = "") -> None:
        self._done.add(operation)
        where = "" if outcome is Outcome.UNPROVEN else self.backend.where()
        reason = reason.replace(f"{self.directory}/", "")  # where a test had its files is nobody's interest
        self.results.add(Result(operation, self.backend.type, outcome, reason, where))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


AsyncTest = Callable[[Any, Rig], Awaitable[None]]


def proves(*operations: str) -> Callable[[AsyncTest], Callable[[Any, Rig], None]]:
    """An async test of the suite that proves these operations, each in a block `with rig.trying(...)`."""
    assert set(operations) <= set(OPERATIONS)

    def declare(test: AsyncTest) -> Callable[[Any, Rig], None]:
        @pytest.mark.operations(*operations)
        @functools.wraps(test)
        def run(self: object, rig: Rig) -> None:
            asyncio.run(rig.run(lambda: test(self, rig)))

        return run

    return declare


def run_and_wait(backend: Backend, wanted: Wanted, booted: Path) -> None:
    """A process of its own that makes a machine, boots it, touches `booted`, and waits for its end."""

    async def own() -> None:
        machine = backend.machines([wanted], None)[0]
        await machine.create()
        await machine.boot()
        booted.touch()
        async with asyncio.timeout(backend.seconds):
            await machine.wait_ended()

    asyncio.run(own())


def own_process(backend: Backend, wanted: Wanted, booted: Path) -> multiprocessing.process.BaseProcess:
    """Start `run_and_wait`."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_and_wait, args=(backend, wanted, booted), daemon=True)
    process.start()
    return process
