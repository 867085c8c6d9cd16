"""What several test modules use: page sizes, signal storms, run files, hosts in a folder."""
