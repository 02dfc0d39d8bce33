"""What OSCAR and its nodes write, line by line."""
