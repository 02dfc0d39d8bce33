"""Machines of libvirt: Xen and VMware."""
