"""Workspaces that are directories of this machine."""

from common.adapters.workspace_local.transport import LocalTransport

__all__ = ["LocalTransport"]
