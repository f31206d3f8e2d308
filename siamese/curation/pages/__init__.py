"""What check and audit show: pages, contact sheets."""
