"""Workspaces that are pods, and the projects that their labels name.

The only folder that imports `kubernetes`, and of it only configuration and the raw ApiClient: typed
models cost a second to import and hide fields. Exec is a small adapter of our own on `websockets`,
because the client's own is quadratic in what it reads (docs/decisions/0008-exec-by-hand.md).
"""
