"""Virtual machines and virtual clusters, described by profiles: one interface, a back-end per hypervisor `type`."""
