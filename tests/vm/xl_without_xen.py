"""libvirt's own converter to Xen's configuration, on a machine that runs no Xen.

    python xl_without_xen.py < definition.xml > domain.cfg

`virsh domxml-to-native xen-xl` asks a daemon whose Xen driver does not start without Xen. What the daemon would do is
three calls into that driver's library: parse the definition by the driver's rules, format it, write it. They are made
here, with the one thing that the driver would have asked Xen for, the kinds of guest there are, put in by hand.

The library has no public interface for this, and another release may be laid out otherwise: so it is a process of its
own, whose death harms nobody, and it stops when the driver's settings are not where this release has them. Ends with 3
where the libraries are missing or other ones, with 1 where libvirt refuses the definition.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_uint, c_void_p
from typing import Any

LIBVIRT = "libvirt.so.0"
XEN_DRIVER = "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_libxl.so"
SUPPORTED = 9_000_000
"""libvirt 9.0.0, as Debian 12 has it; the words of the driver's settings are counted for it."""
CAPABILITIES_WORD, BASE_DIRECTORY_WORD, CONFIG_WORD = 11, 12, 6
INACTIVE = 1
ARCHITECTURES = (b"x86_64", b"i686")


def function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    found: Any = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found


def main() -> int:
    try:
        libvirt = ctypes.CDLL(LIBVIRT, mode=ctypes.RTLD_GLOBAL)
        driver = ctypes.CDLL(XEN_DRIVER)
    except OSError as error:
        print(f"no converter: {error}", file=sys.stderr)
        return 3
    version = ctypes.c_ulong()
    function(libvirt, "virGetVersion", c_int, c_void_p, c_char_p, c_void_p)(byref(version), None, None)
    if version.value != SUPPORTED:
        print(f"no converter: this is libvirt {version.value}, it is written for {SUPPORTED}", file=sys.stderr)
        return 3
    return convert(libvirt, driver, sys.stdin.buffer.read())


def convert(libvirt: ctypes.CDLL, driver: ctypes.CDLL, definition: bytes) -> int:
    function(libvirt, "virInitialize", c_int)()
    options = function(driver, "libxlCreateXMLConf", c_void_p, c_void_p)(ctypes.addressof(xen_driver(libvirt, driver)))
    parse = function(libvirt, "virDomainDefParseString", c_void_p, c_char_p, c_void_p, c_void_p, c_uint)
    domain = parse(definition, options, None, INACTIVE)
    if not domain:
        return refused(libvirt)
    # A NIC on one of libvirt's networks is converted to that network's bridge; the test driver has one named default.
    connection = function(libvirt, "virConnectOpen", c_void_p, c_char_p)(b"test:///default")
    config = function(driver, "xenFormatXL", c_void_p, c_void_p, c_void_p)(domain, connection)
    if not config:
        return refused(libvirt)
    text, length = ctypes.create_string_buffer(1 << 16), c_int(1 << 16)
    function(libvirt, "virConfWriteMem", c_int, c_char_p, POINTER(c_int), c_void_p)(text, byref(length), config)
    sys.stdout.buffer.write(text.value)
    return 0


KEEP: list[object] = []
"""What C points at must not be collected."""


def xen_driver(libvirt: ctypes.CDLL, driver: ctypes.CDLL) -> Any:
    """The driver as its start leaves it: nothing in it but settings, and in them the kinds of guest."""
    settings = function(driver, "libxlDriverConfigNew", c_void_p)()
    words = (ctypes.c_uint64 * 16).from_address(settings)
    if words[CAPABILITIES_WORD] != 0 or ctypes.string_at(words[BASE_DIRECTORY_WORD]) != b"/etc/libvirt":
        print("no converter: the driver's settings are not where they are expected", file=sys.stderr)
        raise SystemExit(3)
    words[CAPABILITIES_WORD] = guest_kinds(libvirt)
    state = (ctypes.c_uint64 * 64)()
    state[CONFIG_WORD] = settings
    KEEP.append(state)
    return state


def guest_kinds(libvirt: ctypes.CDLL) -> int:
    """Para-virtual and fully virtual guests of both architectures, as a Xen host has them."""
    architecture = function(libvirt, "virArchFromString", c_int, c_char_p)
    os_type = function(libvirt, "virDomainOSTypeFromString", c_int, c_char_p)
    domain_type = function(libvirt, "virDomainVirtTypeFromString", c_int, c_char_p)
    new = function(libvirt, "virCapabilitiesNew", c_void_p, c_int, c_bool, c_bool)
    add = function(
        libvirt, "virCapabilitiesAddGuest", c_void_p, c_void_p, c_int, c_int, c_char_p, c_char_p, c_int, c_void_p
    )
    add_domain = function(
        libvirt, "virCapabilitiesAddGuestDomain", c_void_p, c_void_p, c_int, c_char_p, c_char_p, c_int, c_void_p
    )
    kinds: int = new(architecture(ARCHITECTURES[0]), True, True)
    for name in (b"xen", b"hvm"):
        for word in ARCHITECTURES:
            guest = add(kinds, os_type(name), architecture(word), None, None, 0, None)
            add_domain(guest, domain_type(b"xen"), None, None, 0, None)
    return kinds


def refused(libvirt: ctypes.CDLL) -> int:
    message: bytes = function(libvirt, "virGetLastErrorMessage", c_char_p)()
    print(f"error: {message.decode(errors='replace')}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
