"""People who are enrolled in a gallery, and whom a picture shows."""
