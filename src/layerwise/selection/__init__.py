"""Cross-validation, and search for settings."""
