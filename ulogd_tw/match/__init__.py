"""The language of the filter MATCH: text to a tree, and a tree to operations on columns. No Twisted, no files."""
