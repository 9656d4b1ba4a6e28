"""Tests on an NVIDIA GPU; where none is asked for, a few of them on the software GPU."""
