"""Devices and processes: the mesh, how processes meet, and requests to stop."""
