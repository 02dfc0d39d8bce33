"""Machines of QEMU, driven by QMP."""
