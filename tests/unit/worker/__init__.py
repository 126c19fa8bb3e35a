"""Tests of the program of workers."""
