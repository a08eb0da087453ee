"""PostgreSQL through pg8000: the ports' real implementations.

`pool.Database` is the one way in: it lends connections, gives each statement one round trip and
turns the server's troubles into `Unavailable`. SQL lives in `sql/` and `migrations/`.
"""
