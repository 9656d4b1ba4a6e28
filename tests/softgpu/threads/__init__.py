"""What translated code runs on: groups of threads, their memory, and what they do together."""
