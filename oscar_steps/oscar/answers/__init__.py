"""What OSCAR's installer asks, and the answers to it."""
