"""What people receive from the farm."""
