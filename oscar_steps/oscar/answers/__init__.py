"""What OSCAR's installer asks, and what it is answered."""
