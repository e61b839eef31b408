"""The version of the world."""

WORLD_VERSION = 2
"""Raise this when scenes, pictures or questions change: data and weights made with another version are then redone."""
