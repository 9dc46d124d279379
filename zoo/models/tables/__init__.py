"""The rows of the catalog, a file a family: numbers and names only."""
