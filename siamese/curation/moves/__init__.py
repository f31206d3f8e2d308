"""Plans, and moves that can be undone."""
