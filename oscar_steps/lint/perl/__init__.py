"""What is wrong with Perl, and what it loads."""
