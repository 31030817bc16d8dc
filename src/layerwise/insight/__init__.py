"""What happens inside a network: its layers, and one pass through them on show."""
