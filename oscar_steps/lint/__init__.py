"""The first tier: what is wrong with a commit that can be seen in seconds, without any virtual machine."""
