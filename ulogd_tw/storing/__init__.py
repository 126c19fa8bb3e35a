"""Rows into tables of databases."""
