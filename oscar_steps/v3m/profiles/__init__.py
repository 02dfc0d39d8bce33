"""VM and cluster profiles: XML files, checked against their DTDs."""
