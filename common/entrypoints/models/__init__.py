"""Wire models: what bodies and queries may hold. Unknown fields are errors; nothing is coerced."""
