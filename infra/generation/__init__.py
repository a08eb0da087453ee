"""From declarations to files: one module per kind of file, each a pure function to text."""
