"""Workspaces that are directories of this machine."""
