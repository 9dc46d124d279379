"""Networks: a table of models, a family a file, and the weights they start from."""
