"""Devices and processes: a mesh, its shardings, and several hosts in step."""
