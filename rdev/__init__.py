"""What a person installs to talk to rdev: the `rdev` command line.

It speaks HTTP only. Nothing here imports `common` or `functions`, so the command line can follow
a server of another version, and `rdev --help` pays for no server code.
"""
