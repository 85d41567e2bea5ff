"""What breaks for real: processes, servers and connections that end in the middle of a write."""
