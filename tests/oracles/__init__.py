"""Independent references: naive loops in float64, written from the definitions."""
