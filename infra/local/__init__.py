"""The laptop's Knative: one process that routes, starts functions, delivers events, runs Postgres.

It reads the same YAML as the cluster (`infra/base`) and knows nothing of `functions` or `common`
beyond starting them as processes. `docs/concepts/local-runner.md` says what is the same as in
Knative and what is not.
"""
