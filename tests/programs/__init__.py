"""Ten programs of ten trades; README.md says how far each compiles as it was written."""
