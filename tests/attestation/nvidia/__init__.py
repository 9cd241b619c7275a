"""Tests of NVIDIA evidence."""
