"""Desired against actual: the only writers of devices, tables and kernel routes."""
