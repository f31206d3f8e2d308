"""Folders made ready: split lists, conversion, downloads."""
