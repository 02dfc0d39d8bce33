"""The farm's own web pages."""
