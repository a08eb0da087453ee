"""A Kubernetes API for tests: pods, ConfigMaps, watches, exec into real processes.

It is a process of its own (`python -m tests.fake_kubernetes`), so that the code under test meets
a socket and not a function call. `tests/integration/test_kubernetes_fake.py` has kubectl judge it.
"""
