"""One profile on two hypervisors: it boots as `Qemu`, and with nothing but its type changed as `Xen`.

`python -m tests.vm.xen.smoke PROFILE OUT` boots the machine of a profile with the tiny guest, by the back-end that its
type names, until the guest has counted to five; pauses it for a moment, lets it go on, and powers it off. What happened
is written to the file OUT, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from oscar_steps.v3m.boot import DirectKernel
from oscar_steps.v3m.host import ledger
from oscar_steps.v3m.host.accelerator import Accelerator
from oscar_steps.v3m.libvirt.machine import LibvirtMachine
from oscar_steps.v3m.machine import EndReason, EventKind, Machine, MachineEvent, MachineState
from oscar_steps.v3m.profiles.vm import VMProfile, load_profile
from oscar_steps.v3m.qemu import network
from oscar_steps.v3m.qemu.machine import QemuMachine
from tests.vm.tiny_guest import MODULES, XEN_MODULES, counted, make_guest, until

LIMIT = 300.0
PARAMETERS = "console=ttyS0 console=hvc0 quiet panic=-1 do=count"
"""The same for both: of two consoles the kernel takes the one that is there."""


def _machine(profile: VMProfile, directory: Path, kernel: DirectKernel, events: list[MachineEvent]) -> Machine:
    if profile.type == "Qemu":
        accelerator = Accelerator("tcg", "", 2.0)
        lines = network.plan_single(profile)
        return QemuMachine(profile, directory, accelerator, lines, on_event=events.append, kernel=kernel)
    return LibvirtMachine(profile, directory, on_event=events.append, kernel=kernel)


async def _boot(profile: VMProfile, directory: Path) -> dict[str, object]:
    guest = make_guest(directory / "guest", modules=(*MODULES, *XEN_MODULES))
    kernel = DirectKernel(guest.kernel, guest.initrd, PARAMETERS)
    events: list[MachineEvent] = []
    machine = _machine(profile, directory, kernel, events)
    await machine.create()
    began = time.monotonic()
    try:
        await machine.boot()
        running = time.monotonic() - began
        await until(lambda: machine.console.exists() and 5 in counted(machine.console), LIMIT)
        spoke = time.monotonic() - began
        await machine.pause()
        assert await machine.status() is MachineState.PAUSED
        stood = len(counted(machine.console))
        await machine.unpause()
        await until(lambda: len(counted(machine.console)) > stood + 3, LIMIT)
        await machine.power_off()
        assert (await machine.wait_ended()).reason is EndReason.HOST_POWER_OFF
    finally:
        await machine.destroy()
    kinds = [event.kind for event in events]
    expected = [EventKind.STARTED, EventKind.PAUSED, EventKind.RESUMED, EventKind.ENDED]
    assert kinds == expected, f"{kinds} instead of {expected}"
    assert ledger.find_leftovers(directory) == []
    numbers = counted(machine.console)
    assert numbers == list(range(1, len(numbers) + 1)), f"the guest has not simply counted on: {numbers}"
    return {
        "type": profile.type,
        "events": [str(kind) for kind in kinds],
        "seconds to run": round(running, 1),
        "seconds to the guest's fifth word": round(spoke, 1),
    }


def main() -> None:
    profile, out = load_profile(Path(sys.argv[1])), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="xen-smoke-") as directory:
        result = asyncio.run(_boot(profile, Path(directory)))
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(f"{profile.name} as {profile.type}: {json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
