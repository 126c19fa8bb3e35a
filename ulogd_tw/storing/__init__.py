"""Writes rows into tables of databases: columns for keys, one transaction a batch, retries."""
