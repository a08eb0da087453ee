"""One file per verb. Each declares its options and says what to do; the how is in the package."""
